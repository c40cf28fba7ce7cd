"""The embedded default's promise that the first request works: the sandbox serves what no key can buy."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import chain, count
from typing import Final

from app.catalog.entries import Catalog, Model, Prices, Route, Supports, TokenPrices, Upstream

SANDBOX: Final = "sandbox"
"""The name of the adapter that draws placeholder pictures in the process, and of the upstream that stands in."""
_BUILT_IN: Final = Upstream(
    name=SANDBOX,
    adapter=SANDBOX,
    base_url="http://sandbox.invalid/v1",  # never dialled
    api_key_env=None,
    max_concurrency=20,  # drawing takes processor time, not waiting
    requests_per_minute=None,
    images_per_minute=None,
    timeout_s=60.0,  # longer than any delay worth simulating
)
"""As the shipped catalog writes it, for a catalog that has no sandbox."""


def with_sandbox(catalog: Catalog, is_on: Callable[[Upstream], bool]) -> Catalog:
    """Give a sandbox route to each model none of whose routes has an upstream that is on.

    It leads to the catalog's own sandbox, the upstream of that name, else to one that is added and never fails. The
    catalog comes back as it is when no model needs it. The version stays: it is the digest of the file.
    """
    wanting = {
        name
        for name, model in catalog.models.items()
        if not any(is_on(route.upstream) for route in model.routes)
    }
    if not wanting:
        return catalog
    sandbox = _sandbox_of(catalog)
    models = {
        name: replace(model, routes=(*model.routes, _sandbox_route(model, sandbox)))
        if name in wanting
        else model
        for name, model in catalog.models.items()
    }
    return replace(catalog, models=models, upstreams={**catalog.upstreams, sandbox.name: sandbox})


def _sandbox_of(catalog: Catalog) -> Upstream:
    own = catalog.upstreams.get(SANDBOX)
    if own is not None and own.adapter == SANDBOX:
        return own
    names = chain((SANDBOX,), (f"{SANDBOX}-{number}" for number in count(2)))
    return replace(_BUILT_IN, name=next(name for name in names if name not in catalog.upstreams))


def _sandbox_route(model: Model, sandbox: Upstream) -> Route:
    capabilities = model.capabilities
    return Route(
        upstream=sandbox,
        model=model.name,
        weight=1,
        supports=Supports(
            edits=capabilities.edits,
            mask=capabilities.mask,
            stream=True,
            compression=capabilities.compression,
            moderation=bool(capabilities.moderations),
            input_fidelity=bool(capabilities.input_fidelities),
            safety_identifier=True,
            unknown_parameters=True,
        ),
        prices=_free(model),
    )


def _free(model: Model) -> Prices:
    """A price of zero that is known to be zero, by token and by image: placeholder pictures are bought from nobody."""
    free: Mapping[str, Decimal] = dict.fromkeys(model.capabilities.qualities or ("auto",), Decimal(0))
    zero = Decimal(0)
    return Prices(
        per_million_tokens=TokenPrices(text_input=zero, image_input=zero, image_output=zero),
        per_image=dict(free),
    )
