"""Reads JSON bodies: bounded while they arrive, and strict about everything that two parsers could read differently."""

import json
import math
import re
from typing import Any, Final, NoReturn

from fastapi import Request

from app.api.errors import RequestTooLarge
from app.domain.errors import InvalidValue
from app.kit.json import JsonObject

MAX_JSON_BYTES: Final = 1024 * 1024
"""Bound of a body without pictures; 32,000 characters of a prompt are 384 kB when every one is escaped."""
_MAX_DEPTH: Final = 32
_UNUSABLE_TEXT: Final = re.compile("[\ud800-\udfff\x00]")


async def read_json_object(request: Request, *, max_bytes: int = MAX_JSON_BYTES) -> JsonObject:
    """Read the body as one JSON object.

    Raises:
        RequestTooLarge: it has more than `max_bytes` bytes; the rest is not read.
        InvalidValue: it is no JSON object in UTF-8, or holds something ambiguous: a key twice, NaN, half a surrogate
            pair, a null character, or more than 32 levels.
    """
    check_framing(request)
    return parse_json_object(await read_bytes(request, max_bytes=max_bytes))


async def read_bytes(request: Request, *, max_bytes: int) -> bytes:
    """Read a whole body that is small by contract.

    Raises:
        RequestTooLarge: it announces, or has, more than `max_bytes` bytes.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        _refuse_size(max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            _refuse_size(max_bytes)
    return bytes(body)


def parse_json_object(body: bytes) -> JsonObject:
    """Parse one JSON object; see `read_json_object`.

    Raises:
        InvalidValue: as there.
    """
    try:
        document: Any = json.loads(
            body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as exc:
        raise InvalidValue(f"The request body is not UTF-8: byte {exc.start} fits nothing.") from exc
    except json.JSONDecodeError as exc:
        place = f"line {exc.lineno}, column {exc.colno}"
        raise InvalidValue(f"The request body is not valid JSON: {exc.msg} at {place}.") from exc
    except RecursionError as exc:
        raise _too_deep() from exc
    except ValueError as exc:
        raise InvalidValue("The request body holds a number with more digits than anybody needs.") from exc
    return check_object(document)


def check_object(document: Any) -> JsonObject:
    """Check a parsed document for what is no text, no number, or too deep; pictures in it are passed over.

    Raises:
        InvalidValue: it is no object, or holds such a thing.
    """
    if not isinstance(document, dict):
        raise InvalidValue(f"The request body must be a JSON object, not {kind_of(document)}.")
    for name, value in document.items():
        _check_value(name, [(name, 1), (value, 1)])
    return document


def kind_of(value: object) -> str:
    """Name the JSON type of a value, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def check_framing(request: Request) -> None:
    """Check that the body is announced as plain JSON.

    Raises:
        InvalidValue: it is announced as something else.
    """
    given = request.headers.get("content-type", "application/json")
    media_type, _, parameters = given.partition(";")
    if media_type.strip().lower() != "application/json":
        raise InvalidValue(
            f"Invalid Content-Type: {media_type.strip()!r}. Send the body as 'application/json'."
        )
    charset = parameters.lower().partition("charset=")[2].strip().strip('"')
    if charset not in {"", "utf-8", "utf8"}:
        raise InvalidValue(f"Invalid charset: {charset!r}. JSON is sent as UTF-8.")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise InvalidValue(f"Invalid Content-Encoding: {encoding!r}. Send the body uncompressed.")


def _refuse_size(max_bytes: int) -> NoReturn:
    raise RequestTooLarge(
        f"The request body is too large: an endpoint that takes no pictures reads at most {max_bytes} bytes. What "
        "DARKROOM_MAX_BODY_BYTES allows beyond that is for uploads."
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidValue(f"The key {name!r} stands twice in one object; leave one out.", param=name)
        found[name] = value
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise InvalidValue(f"{constant} is not JSON. Numbers are finite.")


def _check_value(param: str, waiting: list[tuple[Any, int]]) -> None:
    """Look through one member of the body, however deep; `param` is its name."""
    while waiting:
        value, depth = waiting.pop()
        match value:
            case str() if _UNUSABLE_TEXT.search(value):
                raise InvalidValue(
                    "The text holds a null character or half of a surrogate pair, which is no character.",
                    param=_UNUSABLE_TEXT.sub("?", param),
                )
            case float() if not math.isfinite(value):
                raise InvalidValue("The number is too large.", param=param)
            case dict() | list() if depth >= _MAX_DEPTH:
                raise _too_deep()
            case dict():
                waiting += ((inner, depth + 1) for pair in value.items() for inner in pair)
            case list():
                waiting += ((inner, depth + 1) for inner in value)


def _too_deep() -> InvalidValue:
    return InvalidValue(f"The request body is nested more than {_MAX_DEPTH} levels deep.")
