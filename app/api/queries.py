"""Reads values out of a query string, with errors that name the parameter."""

import math
import re
from collections import Counter
from collections.abc import Collection
from typing import Final

from fastapi import Request

from app.domain.errors import InvalidValue, UnknownParameter

_INTEGER: Final = re.compile(r"-?[0-9]{1,9}")
_WHOLE: Final = re.compile(r"(-?)0*([0-9]+)")
_DIGITS: Final = 9
"""More of them name no place in anything that we keep."""
_NUMBER: Final = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,30})?(e[+-]?[0-9]{1,3})?", re.IGNORECASE)


def integer(request: Request, name: str, *, default: int, low: int, high: int | None = None) -> int:
    """Read an integer of at least `low` and, where given, at most `high`.

    Raises:
        InvalidValue: it is none.
    """
    given = request.query_params.get(name)
    if given is None:
        return default
    value = int(given) if _INTEGER.fullmatch(given) else None
    if value is None or value < low or (high is not None and value > high):
        raise _out_of_range(name, f"an integer {_range(low, high)}", given)
    return value


def index(request: Request, name: str) -> int:
    """Read a place that is counted from 0, as an integer of any size; 0 when it is absent.

    One that is in no list, such as a negative one, is for the caller to look for and not to find.

    Raises:
        InvalidValue: it is no integer.
    """
    given = request.query_params.get(name, "0")
    match = _WHOLE.fullmatch(given)
    if match is None:
        raise _out_of_range(name, "an integer", given)
    return int(f"{match[1]}{match[2][:_DIGITS]}")


def number(request: Request, name: str, *, default: float, low: float, high: float) -> float:
    """Read a number from `low` to `high`.

    Raises:
        InvalidValue: it is none.
    """
    given = request.query_params.get(name)
    if given is None:
        return default
    value = float(given) if _NUMBER.fullmatch(given) else math.nan
    if not low <= value <= high:
        raise _out_of_range(name, f"a number {_range(low, high)}", given)
    return value


def word(request: Request, name: str, known: tuple[str, ...]) -> str | None:
    """Read one of a few words; None when it is absent.

    Raises:
        InvalidValue: it is none of them.
    """
    given = request.query_params.get(name)
    if given is not None and given not in known:
        choices = ", ".join(repr(item) for item in known)
        raise InvalidValue(f"Invalid value: {given!r}. Supported values are: {choices}.", param=name)
    return given


def refuse_others(request: Request, known: Collection[str], *, bracketed: str | None = None) -> None:
    """Refuse parameters that are none of these, nor of the form `bracketed[key]`: a filter must not be overlooked.

    Raises:
        UnknownParameter: there is one.
        InvalidValue: one is given twice, and only the last would be read.
    """
    form = re.compile(rf"{re.escape(bracketed)}\[[^\[\]]+\]" if bracketed else r"(?!)")
    unknown = next(
        (name for name in request.query_params if name not in known and not form.fullmatch(name)), None
    )
    if unknown is not None:
        names = [*known, f"{bracketed}[key]"] if bracketed else list(known)
        message = f"Unknown parameter: {unknown!r}. This list takes: {', '.join(names)}."
        raise UnknownParameter(message, param=unknown.partition("[")[0] or unknown)
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if times > 1:
            raise InvalidValue(
                f"Invalid '{name}': it is given twice. Leave one out.", param=name.partition("[")[0]
            )


def bracketed(request: Request, name: str) -> dict[str, str]:
    """Read parameters such as `metadata[key]=value` as a mapping."""
    form = re.compile(rf"{re.escape(name)}\[([^\[\]]+)\]")
    matches = ((form.fullmatch(key), value) for key, value in request.query_params.items())
    return {match[1]: value for match, value in matches if match is not None}


def _range(low: float, high: float | None) -> str:
    return f"of {low:g} or more" if high is None else f"from {low:g} to {high:g}"


def _out_of_range(name: str, wanted: str, given: str) -> InvalidValue:
    return InvalidValue(f"Invalid '{name}': expected {wanted}, but got {given!r}.", param=name)
