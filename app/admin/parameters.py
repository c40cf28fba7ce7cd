"""Reads what operators send: limits, moments and pages. Strict, because a limit that is misread is no limit."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from fastapi import Depends, Request

from app.accounts.records import Role
from app.api import queries
from app.api.authentication import LOOKS, caller_of, may_only_look
from app.api.bodies import kind_of, read_json_object
from app.api.parameters import Fields
from app.catalog.entries import Catalog
from app.domain.errors import InvalidValue, UnknownParameter
from app.kit.json import Json, JsonObject

MAX_PAGE: Final = 100
_NAME_CHARS: Final = 200
_COUNTS: Final = ("requests_per_minute", "images_per_minute", "max_jobs", "max_queued")
_BUDGETS: Final = ("budget_day_usd", "budget_month_usd")
_MOST: Final = 1_000_000_000
# A budget is kept in micro-dollars.
_FINEST_USD: Final = Decimal("0.000001")
_TRUE: Final = frozenset({"true", "1"})
_FALSE: Final = frozenset({"false", "0"})
_SAFE: Final = frozenset({"GET", "HEAD"})
_BRACKETED: Final = re.compile(r"\[[^\[\]]+\]$")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_UNIX: Final = re.compile(r"\d{1,12}")
_DAY: Final = timedelta(days=1)


async def _check_act(request: Request) -> None:
    """Refuse anything that an endpoint does not take, so that nobody acts by a typo, or takes all for some.

    What an endpoint takes is what it documents; a dry run that it does not have is such a thing too.

    Raises:
        UnknownParameter: it takes no parameter, or no member of a body, of this name.
        InvalidValue: a parameter is given twice.
        AdminKeyRequired: the key may only look, and this is no dry run.
    """
    is_safe = request.method in _SAFE
    documented = request.scope["route"].openapi_extra or {}
    known = [item["name"] for item in documented.get("parameters", ())]
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if _BRACKETED.sub("[key]", name) not in known:
            takes = f"takes: {', '.join(known)}" if known else "takes none in its query"
            raise UnknownParameter(f"Unknown parameter: {name!r}. This endpoint {takes}.", param=name)
        if not is_safe and given.count(name) > 1:
            raise InvalidValue(f"Invalid '{name}': it is given twice. Leave one out.", param=name)
    if is_safe:
        return
    # The middleware has seen that it asks for a dry run; here it is known that there is one.
    only_looks = request.scope["path"] in LOOKS or read_flag(request, "dry_run")
    if caller_of(request).role is Role.ADMIN_READ and not only_looks:
        raise may_only_look()
    if "requestBody" not in documented:
        refuse_rest(await read_fields(request))


CHECKED_ACT: Final = Depends(_check_act)
"""For the router of every resource of the operators'."""


async def read_document(request: Request) -> JsonObject:
    """Read the body; one that is absent holds nothing.

    Raises:
        GatewayError: it is no JSON object.
    """
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return {}
    return await read_json_object(request)


async def read_fields(request: Request) -> Fields:
    """Read the members of the body, as `read_document` does."""
    return Fields(await read_document(request))


def refuse_rest(fields: Fields, *known: str) -> None:
    """Refuse what nobody took.

    Raises:
        UnknownParameter: something is left; `known` are the names that this endpoint takes.
    """
    left = next(iter(fields.rest()), None)
    if left is not None:
        takes = f"takes: {', '.join(known)}" if known else "takes no body"
        message = f"Unknown parameter: {left!r}. This endpoint {takes}."
        raise UnknownParameter(message, param=left)


def read_name(given: str) -> str:
    """Check a name: 1 to 200 characters that can be printed, without space around them.

    Raises:
        InvalidValue: it is none.
    """
    if not given.isprintable() or given != given.strip() or not 0 < len(given) <= _NAME_CHARS:
        message = (
            f"Invalid 'name': expected 1 to {_NAME_CHARS} printable characters, without space around them."
        )
        raise InvalidValue(message, param="name")
    return given


def read_limits(given: Mapping[str, Json], catalog: Catalog) -> JsonObject:
    """Check the limits of a team or of a key (contract 9); null members stay, they lift a limit.

    Models are kept under their own names, whatever alias they came by; budgets as they were written.

    Raises:
        UnknownParameter: a limit that there is not.
        InvalidValue: a limit of the wrong type or range, or a model that the catalog does not have.
    """
    return {name: None if value is None else _limit(name, value, catalog) for name, value in given.items()}


def _limit(name: str, value: Json, catalog: Catalog) -> Json:
    param = f"limits.{name}"
    if name == "allowed_models":
        return _models(value, catalog, param)
    if name in _COUNTS:
        return _count(value, param)
    if name in _BUDGETS:
        return _budget(value, param)
    known = ", ".join(("allowed_models", *_COUNTS, *_BUDGETS))
    raise UnknownParameter(f"Unknown parameter: {param!r}. Limits are: {known}.", param=param)


def _models(value: Json, catalog: Catalog, param: str) -> list[Json]:
    if not isinstance(value, list) or not value:
        message = (
            f"Invalid {param!r}: expected a list of at least one model; leave it out to allow every model."
        )
        raise InvalidValue(message, param=param)
    names: list[Json] = []
    for item in value:
        model = catalog.model(item) if isinstance(item, str) else None
        if model is None:
            message = (
                f"Invalid {param!r}: there is no model {item!r}. GET /v1/models lists those that there are."
            )
            raise InvalidValue(message, param=param)
        if model.name not in names:
            names.append(model.name)
    return names


def _count(value: Json, param: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MOST:
        message = f"Invalid {param!r}: expected an integer from 1 to {_MOST}, but got {_shown(value)}."
        raise InvalidValue(message, param=param)
    return value


def _budget(value: Json, param: str) -> Json:
    dollars = _decimal(value)
    is_exact = dollars is not None and 0 <= dollars <= _MOST and dollars % _FINEST_USD == 0
    if not is_exact:
        message = (
            f"Invalid {param!r}: expected US dollars such as '25.00', from 0 to {_MOST} and with at most six "
            f"decimals, but got {_shown(value)}."
        )
        raise InvalidValue(message, param=param)
    return value


def _decimal(value: Json) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        # The shortest text that means this float is what was written.
        found = Decimal(value if isinstance(value, str) else str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _shown(value: Json) -> str:
    return repr(value)[:80] if isinstance(value, str | int | float) else kind_of(value)


def read_moment(value: Json, param: str) -> datetime | None:
    """Read a moment: Unix seconds, ISO 8601 with its zone, or a date, whose first moment (UTC) it is; None for null.

    Raises:
        InvalidValue: it is none.
    """
    match value:
        case None:
            return None
        case bool():
            pass
        case int() | float() if 0 <= value < 253_402_300_800:
            return datetime.fromtimestamp(value, UTC)
        case str():
            try:
                if _DATE.fullmatch(value):
                    return datetime.combine(date.fromisoformat(value), time(), UTC)
                moment = datetime.fromisoformat(value)
                if moment.tzinfo is not None:
                    return moment.astimezone(UTC)
            except (ValueError, OverflowError):
                pass
    message = (
        f"Invalid {param!r}: expected Unix seconds, a date such as '2027-01-31', or a moment with its zone such as "
        f"'2027-01-31T00:00:00Z', but got {_shown(value)}."
    )
    raise InvalidValue(message, param=param)


def query_moment(request: Request, name: str, *, is_end: bool = False) -> datetime | None:
    """Read a moment of the query, as `read_moment` does; None when it is absent or empty.

    `is_end`: the first moment that no longer belongs. A date is then the last day that does.

    Raises:
        InvalidValue: it is none.
    """
    given = request.query_params.get(name)
    if not given:
        return None
    if _UNIX.fullmatch(given):
        return read_moment(int(given), name)
    # A plus sign in a query is a space.
    moment = read_moment(given.replace(" ", "+"), name)
    try:
        return moment + _DAY if moment is not None and is_end and _DATE.fullmatch(given) else moment
    except OverflowError as exc:
        raise InvalidValue(f"Invalid '{name}': {given!r} is the last day that there is.", param=name) from exc


def check_order(since: datetime | None, until: datetime | None) -> None:
    """Refuse a span that ends before it begins, which would look as if there were nothing in it.

    Raises:
        InvalidValue: `until` is not after `since`.
    """
    if since is not None and until is not None and since >= until:
        raise InvalidValue("Invalid 'to': expected a moment after 'from'.", param="to")


def read_page(request: Request) -> tuple[str | None, int]:
    """Read where a page begins (`after`: the last item of the page before, None for the first) and how long it is.

    Raises:
        InvalidValue: `limit` is not from 1 to 100.
    """
    limit = queries.integer(request, "limit", default=20, low=1, high=MAX_PAGE)
    return request.query_params.get("after") or None, limit


def read_flag(request: Request, name: str, *, default: bool = False) -> bool:
    """Read true or false from the query.

    Raises:
        InvalidValue: it is neither.
    """
    given = request.query_params.get(name)
    if given is None:
        return default
    if given.lower() not in _TRUE | _FALSE:
        message = f"Invalid value: {given!r}. Supported values are: 'true' and 'false'."
        raise InvalidValue(message, param=name)
    return given.lower() in _TRUE
