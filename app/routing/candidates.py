"""Which routes of a model can serve a request: data of the catalog against the request, before anything is sent."""

from dataclasses import dataclass

from app.catalog.entries import InputWay, Route, Supports
from app.catalog.sizes import AUTO
from app.catalog.validation import DEFAULT_FORMAT
from app.domain.pictures import parse_size
from app.domain.requests import ImageRequest, Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Inability:
    """Why a route cannot do a request."""

    param: str | None
    """The parameter it fails on; None where it is the kind of request."""
    reason: str
    """A sentence for clients and operators."""


def inability(route: Route, request: ImageRequest, *, can_link: bool = False) -> Inability | None:
    """Why this route cannot do the request, or None when it can; the request is valid for the model already.

    `can_link` says that vendors can fetch files from the gateway, by its public URL.

    `auto` is what every vendor does by itself, and a stream can be made of a finished picture, so neither ever rules
    a route out.
    """
    return (
        _operation_inability(route, request)
        or _input_inability(route, request, can_link)
        or _value_inability(route, request)
        or _parameter_inability(route, request)
    )


def pictures_per_call(route: Route, request: ImageRequest) -> int:
    """How many of the request's pictures one attempt at this route may buy."""
    most = route.supports.max_n
    return request.n if most is None else min(request.n, most)


def _operation_inability(route: Route, request: ImageRequest) -> Inability | None:
    supports = route.supports
    if request.operation is Operation.GENERATION and not supports.generations:
        return Inability(param=None, reason=f"{_place(route)} only edits pictures.")
    if request.operation is Operation.EDIT and not supports.edits:
        return Inability(param="image", reason=f"{_place(route)} does not edit pictures.")
    if request.mask is not None and not supports.mask:
        return _not_accepted(route, "mask")
    return None


def _input_inability(route: Route, request: ImageRequest, can_link: bool) -> Inability | None:
    if request.operation is not Operation.EDIT or route.supports.inputs is InputWay.SENT:
        return None
    if can_link or route.upstream.accepts_data_urls:
        return None
    reason = (
        f"{_place(route)} fetches its inputs by link, and this gateway has no address that vendors can reach."
    )
    return Inability(param="image", reason=reason)


def _value_inability(route: Route, request: ImageRequest) -> Inability | None:
    supports = route.supports
    size = None if request.size is None else parse_size(request.size)
    if size is not None and supports.sizes is not None and size not in supports.sizes:
        return _not_made(route, "size", request.size)
    for param, value, made in (
        ("quality", request.quality, supports.qualities),
        ("background", request.background, supports.backgrounds),
        ("output_format", request.output_format, supports.formats),
    ):
        if value is not None and value != AUTO and made is not None and value not in made:
            return _not_made(route, param, value)
    if (
        request.output_format is None
        and supports.formats is not None
        and DEFAULT_FORMAT not in supports.formats
    ):
        return _not_made(route, "output_format", DEFAULT_FORMAT)
    return None


def _parameter_inability(route: Route, request: ImageRequest) -> Inability | None:
    for param, is_asked, is_supported in _parameters(route.supports, request):
        if is_asked and not is_supported:
            return _not_accepted(route, param)
    if request.extra and not route.supports.unknown_parameters:
        return _not_accepted(route, min(request.extra))
    return None


def _parameters(supports: Supports, request: ImageRequest) -> tuple[tuple[str, bool, bool], ...]:
    return (
        ("output_compression", request.output_compression is not None, supports.compression),
        ("moderation", request.moderation not in {None, AUTO}, supports.moderation),
        ("input_fidelity", request.input_fidelity is not None, supports.input_fidelity),
        ("user", request.user is not None, supports.user),
        ("safety_identifier", request.safety_identifier is not None, supports.safety_identifier),
    )


def _not_accepted(route: Route, param: str) -> Inability:
    return Inability(param=param, reason=f"{_place(route)} does not accept '{param}'.")


def _not_made(route: Route, param: str, value: str | None) -> Inability:
    return Inability(param=param, reason=f"{_place(route)} does not offer {value!r} as '{param}'.")


def _place(route: Route) -> str:
    return f"The upstream '{route.upstream.name}'"
