"""Reads multipart forms: files go to disk while they arrive, with every limit counted on the way."""

import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, Final

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError

from app.api.errors import RequestTooLarge
from app.domain.errors import InvalidValue
from app.kit.ids import new_id

_BRACKETS: Final = re.compile(r"\[([0-9]{0,4})\]$")
_MAX_FIELDS: Final = 100
_MAX_FIELD_BYTES: Final = 256 * 1024
"""A prompt of 32,000 characters has at most 128 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedFile:
    """One file of a form, in the request's workspace."""

    name: str
    """The form's field."""
    filename: str
    media_type: str
    """As the client declared it; what the file really is, its bytes say."""
    path: Path
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FormLimits:
    """How much a form may hold."""

    total_bytes: int
    file_bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Form:
    """A form that was read to its end: texts and files, each in the order of the form."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[UploadedFile] = field(default_factory=list)


async def read_form(
    request: Request,
    folder: Path,
    limits: FormLimits,
    *,
    file_fields: Collection[str] = (),
    has_alternative: bool = False,
) -> Form:
    """Read a multipart form, its files into `folder`, which must exist.

    What stands in `file_fields`, also in brackets after them, is a file even where its part has no file name.
    `has_alternative`: the same request can also be made in JSON.

    Raises:
        RequestTooLarge: a limit was passed; the rest is not read.
        InvalidValue: it is no multipart form, is cut off, or gives a text field twice.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.total_bytes:
        raise _too_large(limits)
    reader = _Reader(folder, limits, file_fields)
    try:
        boundary = _boundary(request, has_alternative=has_alternative)
        parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type] # plain mapping
        received_bytes = 0
        async for chunk in request.stream():
            received_bytes += len(chunk)
            if received_bytes > limits.total_bytes:
                raise _too_large(limits)
            parser.write(chunk)
        parser.finalize()
    except FormParserError as exc:
        raise InvalidValue(f"The form cannot be read: {exc}") from exc
    finally:
        reader.close()
    if not reader.is_complete:
        raise InvalidValue("The form ends before its closing boundary.")
    return reader.form


def field_of(name: str) -> str:
    """The field that a part belongs to: `image` for `image[]` and `image[0]`, which clients write for several."""
    return _BRACKETS.sub("", name)


def place_of(name: str) -> int:
    """The place that a part's name gives it, such as 2 for `image[2]`; 0 where it gives none."""
    match = _BRACKETS.search(name)
    return int(match[1] or 0) if match else 0


def _too_large(limits: FormLimits) -> RequestTooLarge:
    return RequestTooLarge(
        f"The request body is too large: at most {limits.total_bytes} bytes (DARKROOM_MAX_BODY_BYTES) are taken here."
    )


def _boundary(request: Request, *, has_alternative: bool) -> bytes:
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
        given = request.headers.get("content-type", "").partition(";")[0].strip()
        other = ", or as 'application/json'" if has_alternative else ""
        raise InvalidValue(
            f"Invalid Content-Type: {given!r}. Send the body as 'multipart/form-data' with its boundary{other}."
        )
    return boundary.encode("latin-1", "replace")


class _Reader:
    """Takes the parser's events."""

    def __init__(self, folder: Path, limits: FormLimits, file_fields: Collection[str]) -> None:
        self.form = Form()
        self.is_complete = False
        self._folder = folder
        self._limits = limits
        self._file_fields = file_fields
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[str, str] = {}
        self._name = ""
        self._text = bytearray()
        self._file: IO[bytes] | None = None
        self._path = folder
        self._digest = hashlib.sha256()
        self._filename = ""
        self._size_bytes = 0

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._take,
            "on_part_end": self._end,
            "on_end": self._complete,
        }

    def close(self) -> None:
        """Close a file that never came to its end; the workspace is removed by its owner."""
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self._headers = {}
        self._text.clear()

    def _end_header(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = self._header_value.decode(
            "utf-8", "replace"
        )
        self._header_name.clear()
        self._header_value.clear()

    def _open(self) -> None:
        disposition = Message()
        disposition["content-disposition"] = self._headers.get("content-disposition", "")
        name = disposition.get_param("name", header="content-disposition")
        if not isinstance(name, str):
            raise InvalidValue("A part of the form has no name.")
        self._name = name
        has_file_name = disposition.get_param("filename", header="content-disposition") is not None
        if not has_file_name and field_of(name) not in self._file_fields:
            if len(self.form.fields) >= _MAX_FIELDS:
                raise InvalidValue(f"The form has more than {_MAX_FIELDS} fields.", param=name)
            return
        if len(self.form.files) >= self._limits.files:
            raise InvalidValue(f"The form has more than {self._limits.files} files.", param=field_of(name))
        self._filename = disposition.get_filename("") or "upload"
        self._path = self._folder / new_id("part")
        self._file = self._path.open("xb")
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def _take(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if self._file is None:
            self._text += piece
            if len(self._text) > _MAX_FIELD_BYTES:
                raise RequestTooLarge(f"The field has more than {_MAX_FIELD_BYTES} bytes.", param=self._name)
            return
        self._size_bytes += len(piece)
        if self._size_bytes > self._limits.file_bytes:
            raise RequestTooLarge(
                f"The file has more than {self._limits.file_bytes} bytes.", param=field_of(self._name)
            )
        self._file.write(piece)
        self._digest.update(piece)

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self.form.files.append(
                UploadedFile(
                    name=self._name,
                    filename=self._filename,
                    media_type=self._headers.get("content-type", "application/octet-stream"),
                    path=self._path,
                    size_bytes=self._size_bytes,
                    sha256=self._digest.digest(),
                )
            )
            return
        if self._name in self.form.fields:
            raise InvalidValue(f"The field '{self._name}' is given twice; leave one out.", param=self._name)
        try:
            self.form.fields[self._name] = self._text.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise InvalidValue("The field is not UTF-8.", param=self._name) from exc

    def _complete(self) -> None:
        self.is_complete = True
