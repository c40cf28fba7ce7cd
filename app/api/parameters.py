"""Reads the typed parameters of a request: strict about types, with null for what was not given.

Which values a model takes is the catalog's to say.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from app.api.bodies import kind_of, parse_json_object
from app.domain.errors import InvalidValue, MissingParameter, UnknownParameter
from app.domain.requests import ImageRequest, InputPicture, Operation
from app.kit.json import Json, JsonObject

RESPONSE_FORMATS: Final = ("b64_json", "url")
# Parameters of other endpoints, which nobody should find silently passed on to a vendor.
_OF_EDITS: Final = ("image", "image[]", "images", "mask")
# What a form can only write as text.
_INTEGERS: Final = frozenset({"n", "output_compression", "partial_images"})
_NUMBERS: Final = frozenset({"cancel_after_s"})
_BOOLEANS: Final = frozenset({"async", "stream"})
_INTEGER: Final = re.compile(r"-?[0-9]{1,9}")
_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class Fields:
    """The members of a body, taken out one by one; what nobody took is left over."""

    def __init__(self, document: Mapping[str, Json]) -> None:
        self._left = {name: value for name, value in document.items() if value is not None}

    def text(self, name: str) -> str | None:
        """Take a string.

        Raises:
            InvalidValue: it is something else.
        """
        value = self._left.pop(name, None)
        if value is None or isinstance(value, str):
            return value
        raise _wrong_type(name, "a string", value)

    def required_text(self, name: str) -> str:
        """Take a string that must be given.

        Raises:
            MissingParameter: it is absent, null or empty.
            InvalidValue: it is no string.
        """
        value = self.text(name)
        if not value:
            raise MissingParameter(f"Missing required parameter: '{name}'.", param=name)
        return value

    def word(self, name: str, known: tuple[str, ...]) -> str | None:
        """Take a string that is one of a few.

        Raises:
            InvalidValue: it is none of them.
        """
        value = self.text(name)
        if value is None or value in known:
            return value
        choices = ", ".join(repr(word) for word in known)
        raise InvalidValue(f"Invalid value: {value!r}. Supported values are: {choices}.", param=name)

    def integer(self, name: str) -> int | None:
        """Take an integer; `1.0`, `"1"` and `true` are none.

        Raises:
            InvalidValue: it is something else.
        """
        value = self._left.pop(name, None)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise _wrong_type(name, "an integer", value)

    def number(self, name: str) -> float | None:
        """Take a finite number.

        Raises:
            InvalidValue: it is something else.
        """
        value = self._left.pop(name, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _wrong_type(name, "a number", value)
        return float(value)

    def boolean(self, name: str) -> bool | None:
        """Take true or false.

        Raises:
            InvalidValue: it is something else.
        """
        value = self._left.pop(name, None)
        if value is None or isinstance(value, bool):
            return value
        raise _wrong_type(name, "a boolean", value)

    def mapping(self, name: str) -> Mapping[str, Json] | None:
        """Take an object.

        Raises:
            InvalidValue: it is something else.
        """
        value = self._left.pop(name, None)
        if value is None or isinstance(value, Mapping):
            return value
        raise _wrong_type(name, "an object", value)

    def items(self, name: str) -> Sequence[Json] | None:
        """Take an array.

        Raises:
            InvalidValue: it is something else.
        """
        value = self._left.pop(name, None)
        if value is None or isinstance(value, list):
            return value
        raise _wrong_type(name, "an array", value)

    def drop(self, name: str) -> None:
        """Take whatever stands there, and forget it."""
        self._left.pop(name, None)

    def holds(self, name: str) -> bool:
        """Whether this member was given and not yet taken."""
        return name in self._left

    def rest(self) -> dict[str, Json]:
        """What was given and nobody took."""
        return dict(self._left)


def read_generation(fields: Fields) -> ImageRequest:
    """Read a request for pictures from a prompt; what is left over becomes `extra`.

    Raises:
        GatewayError: a parameter is missing, of the wrong type, or not for this endpoint.
    """
    foreign = next((name for name in _OF_EDITS if fields.holds(name)), None)
    if foreign is not None:
        raise UnknownParameter(
            f"Unknown parameter: '{foreign}'. Pictures are edited at /v1/images/edits.", param=foreign
        )
    return _read(fields, Operation.GENERATION)


def read_edit(fields: Fields, images: tuple[InputPicture, ...], mask: InputPicture | None) -> ImageRequest:
    """Read a request to edit these pictures; what is left over becomes `extra`.

    Raises:
        GatewayError: a parameter is missing or of the wrong type.
    """
    return replace(_read(fields, Operation.EDIT), images=images, mask=mask)


def typed_form(texts: Mapping[str, str]) -> dict[str, Json]:
    """Read a form's texts as the JSON that they stand for: numbers and booleans by name, `metadata` as an object.

    It comes as one field `metadata[k]` for each pair, or as one field with the object in JSON.

    Raises:
        InvalidValue: `metadata` is no JSON object, or comes in both ways.
    """
    document: dict[str, Json] = {}
    metadata: dict[str, Json] = {}
    for name, text in texts.items():
        if name.startswith("metadata[") and name.endswith("]"):
            metadata[name[len("metadata[") : -1]] = text
        elif name == "metadata" and text:
            document[name] = json_parameter(text.encode(), name)
        elif name in _INTEGERS and _INTEGER.fullmatch(text):
            document[name] = int(text)
        elif name in _NUMBERS and _NUMBER.fullmatch(text):
            document[name] = float(text)
        elif name in _BOOLEANS and text in ("true", "false"):
            document[name] = text == "true"
        else:
            document[name] = text
    if metadata and "metadata" in document:
        message = "Invalid 'metadata': it is given as JSON and pair by pair. Send one of them."
        raise InvalidValue(message, param="metadata")
    return {**document, "metadata": metadata} if metadata else document


def json_parameter(content: bytes, name: str) -> JsonObject:
    """Read a parameter that is a JSON object by itself, as a header and a form's field can be.

    Raises:
        InvalidValue: it is none.
    """
    try:
        return parse_json_object(content)
    except InvalidValue as exc:
        told = exc.message.replace("The request body", "The text")
        raise InvalidValue(f"Invalid '{name}': expected a JSON object. {told}", param=name) from exc


def _read(fields: Fields, operation: Operation) -> ImageRequest:
    stream = fields.boolean("stream") or False
    response_format = fields.word("response_format", RESPONSE_FORMATS)
    if stream and response_format == "url":
        message = "Invalid 'response_format': a stream carries the pictures themselves, as 'b64_json' alone."
        raise InvalidValue(message, param="response_format")
    return ImageRequest(
        operation=operation,
        model=fields.required_text("model"),
        # Whether a prompt is there and not too long is checked with the model's other values.
        prompt=fields.text("prompt") or "",
        n=_given(fields.integer("n"), 1),
        size=fields.text("size"),
        quality=fields.text("quality"),
        background=fields.text("background"),
        output_format=fields.text("output_format"),
        output_compression=fields.integer("output_compression"),
        moderation=fields.text("moderation"),
        input_fidelity=fields.text("input_fidelity"),
        user=fields.text("user"),
        safety_identifier=fields.text("safety_identifier"),
        stream=stream,
        partial_images=fields.integer("partial_images"),
        response_format=response_format,
        extra=fields.rest(),
    )


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _wrong_type(name: str, wanted: str, value: object) -> InvalidValue:
    # The type, not the value: it may be a prompt in the wrong place.
    return InvalidValue(
        f"Invalid type for '{name}': expected {wanted}, but got {kind_of(value)} instead.", param=name
    )
