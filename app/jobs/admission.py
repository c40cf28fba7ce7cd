"""Whether a request may become a job: checked against the catalog before anything is written, held or bought."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from app.catalog.current import CurrentCatalog
from app.catalog.entries import Catalog, Model, OnUnknownOutcome
from app.catalog.pricing import upper_bound
from app.catalog.validation import validate
from app.domain.errors import ModelNotFound
from app.domain.requests import ImageRequest
from app.jobs.routes import Routes
from app.routing.plan import Absence, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A request that can be served, with what its job is to remember of the catalog."""

    request: ImageRequest
    """Under the model's own name, whatever alias it came by."""
    catalog_version: str
    deadline_s: float
    spare: int
    """How many attempts with an unknown outcome may be bought again."""
    picture_hold_micros: int | None
    """The most that one picture may cost at any route that may be asked; None when a price is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What would become of a request."""

    request: ImageRequest
    """Under the model's own name, whatever alias it came by."""
    model: Model
    plan: Plan


class Admission:
    """Turns requests away that nothing can serve, with the reason."""

    def __init__(
        self, catalog: CurrentCatalog, routes: Routes, *, max_prompt_chars: int | None = None
    ) -> None:
        """Join the parts; `max_prompt_chars` is the operator's bound on every model's prompts."""
        self._catalog = catalog
        self._routes = routes
        self._max_prompt_chars = max_prompt_chars

    def admit(
        self,
        request: ImageRequest,
        *,
        check_model: Callable[[str], None] = lambda _model: None,
        is_budgeted: bool = False,
    ) -> Admitted:
        """Check a request whose model is still the name that the client used.

        `check_model` refuses a model, by its own name, that the caller may not use. `is_budgeted` leaves out routes
        whose cost no budget could bound.

        Raises:
            ModelNotFound: the catalog has no such model.
            GatewayError: a parameter has a value that the model cannot honour, or no route can do the request.
        """
        catalog = self._catalog.get()
        request, model = self._checked(catalog, request, check_model)
        outline = self._routes.outline(model, request, is_budgeted=is_budgeted)
        refusal = outline.refusal()
        if refusal is not None:
            raise refusal
        routing = model.routing
        return Admitted(
            request=request,
            catalog_version=catalog.version,
            deadline_s=routing.deadline_s,
            spare=1 if routing.on_unknown_outcome is OnUnknownOutcome.FAILOVER else 0,
            picture_hold_micros=_picture_hold_micros(model, request, outline),
        )

    async def explain(
        self,
        request: ImageRequest,
        *,
        check_model: Callable[[str], None] = lambda _model: None,
        is_budgeted: bool = False,
    ) -> Explanation:
        """Say what would become of a request at this moment, by the very plan that a job of it would be given.

        Raises:
            ModelNotFound: the catalog has no such model.
            GatewayError: a parameter has a value that the model cannot honour.
        """
        request, model = self._checked(self._catalog.get(), request, check_model)
        plan = (await self._routes.plan(model, request, is_budgeted=is_budgeted)).plan
        return Explanation(request=request, model=model, plan=plan)

    def _checked(
        self, catalog: Catalog, request: ImageRequest, check_model: Callable[[str], None]
    ) -> tuple[ImageRequest, Model]:
        model = known_model(catalog, request.model)
        check_model(model.name)
        request = replace(request, model=model.name)
        validate(request, model, max_prompt_chars=self._max_prompt_chars)
        return request, model


def known_model(catalog: Catalog, name: str) -> Model:
    """Find a model by any of its names.

    Raises:
        ModelNotFound: the catalog has no such model.
    """
    model = catalog.model(name)
    if model is None:
        message = f"The model {name!r} does not exist here. GET /v1/models lists those that do."
        raise ModelNotFound(message, param="model")
    return model


def _picture_hold_micros(model: Model, request: ImageRequest, outline: Plan) -> int | None:
    routes = [item.route for item in outline.candidates]
    routes += [item.route for item in outline.left_out if item.absence is Absence.LATER]
    bounds = [upper_bound(route, model, request, 1) for route in routes]
    known = [bound for bound in bounds if bound is not None]
    return max(known) if known and len(known) == len(bounds) else None
