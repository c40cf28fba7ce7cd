"""The multipart form of an edit, read as it arrives: texts into memory, the pictures that will be shown into files."""

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterable
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

_BATCH_BYTES: Final = 1024 * 1024
_TEXT_BYTES: Final = 1024 * 1024
_PICTURE_BYTES: Final = 50 * 1024 * 1024
_PICTURE_NAMES: Final = frozenset({"image", "image[]"})


class FormUnusable(ValueError):
    """A body is no form, or holds more than one may. The message says which."""


class Form:
    """A form's texts, its first picture and its mask; close it, and the files are gone."""

    def __init__(self, content_type: str, directory: Path) -> None:
        """`directory` must exist; files in it have no name.

        Raises:
            FormUnusable: the content type names no boundary.
        """
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise FormUnusable("Expected a multipart/form-data body with a boundary.")
        self.texts: dict[str, str] = {}
        self.pictures = 0
        """How many input pictures there are, without the mask."""
        self.photo: IO[bytes] | None = None
        """The first of them."""
        self.mask: IO[bytes] | None = None
        self._directory = directory
        self._lock = threading.Lock()
        self._is_closed = False
        self._is_ended = False
        self._text_bytes = 0
        self._header = b""
        self._value = b""
        self._disposition: dict[bytes, bytes] = {}
        self._text: bytearray | None = None
        self._file: IO[bytes] | None = None
        self._file_bytes = 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._open,
                    "on_part_data": self._data,
                    "on_part_end": self._finish,
                    "on_end": self._end,
                },
            )
        except FormParserError as exc:
            raise FormUnusable("The boundary of the form is too long.") from exc

    async def read(self, chunks: AsyncIterable[bytes]) -> None:
        """Read the body to its end.

        Raises:
            FormUnusable: it is malformed, ends early, or holds too much.
        """
        batch: list[bytes] = []
        held_bytes = 0
        try:
            async for chunk in chunks:
                batch.append(chunk)
                held_bytes += len(chunk)
                if held_bytes >= _BATCH_BYTES:
                    await asyncio.to_thread(self._feed, b"".join(batch))
                    batch, held_bytes = [], 0
            await asyncio.to_thread(self._feed, b"".join(batch))
        except FormParserError as exc:
            raise FormUnusable("The body is not a well-formed form.") from exc
        if not self._is_ended:
            raise FormUnusable("The form ends before its closing boundary.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_closed = True
            for file in (self.photo, self.mask):
                if file is not None:
                    file.close()

    def _feed(self, data: bytes) -> None:
        # After a cancellation a thread may come this far with nobody waiting for it.
        with self._lock:
            if not self._is_closed:
                self._parser.write(data)

    def _begin(self) -> None:
        self._disposition, self._text, self._file = {}, None, None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, self._disposition = parse_options_header(self._value)
        self._header = self._value = b""

    def _open(self) -> None:
        name = self._name()
        if b"filename" not in self._disposition:
            self._text = bytearray()
        elif name in _PICTURE_NAMES:
            self.pictures += 1
            if self.photo is None:
                self._file = self.photo = self._fresh()
        elif name == "mask" and self.mask is None:
            self._file = self.mask = self._fresh()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._text is not None:
            self._text_bytes += end - start
            if self._text_bytes > _TEXT_BYTES:
                raise FormUnusable(f"The texts of the form are longer than {_TEXT_BYTES} bytes.")
            self._text += data[start:end]
        elif self._file is not None:
            self._file_bytes += end - start
            if self._file_bytes > _PICTURE_BYTES:
                raise FormUnusable(f"A picture is larger than {_PICTURE_BYTES} bytes.")
            self._file.write(data[start:end])

    def _finish(self) -> None:
        if self._text is not None:
            self.texts[self._name()] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._is_ended = True

    def _fresh(self) -> IO[bytes]:
        self._file_bytes = 0
        # Closed with the form.
        return tempfile.TemporaryFile(dir=self._directory)

    def _name(self) -> str:
        return self._disposition.get(b"name", b"").decode("utf-8", "replace")
