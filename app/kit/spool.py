"""A JSON document that may hold pictures, read as it arrives.

Short values become a document in memory. A long base64 string is decoded into a file on its way, and a handle stands
in its place; so the memory used is a few buffers, whatever the size of the pictures.
"""

import asyncio
import binascii
import json
import re
import secrets
import tempfile
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NoReturn, TypeAlias

import pybase64

# So much is gathered before a thread is asked to parse, decode and write it: enough that the hop costs nothing, and
# the loop never waits for a disk.
_BATCH_BYTES: Final = 128 * 1024
# A body up to this size is parsed where it stands: that is quicker than a hop.
_INLINE_BYTES: Final = 64 * 1024

# Longest well-formed run of JSON string characters: an escape cut in two by a chunk's end stays behind.
_WHOLE_ESCAPES: Final = re.compile(rb"(?:[^\\]++|\\[^u]|\\u[0-9a-fA-F]{4})*+")
_LONGEST_ESCAPE: Final = len(rb"\u0000")
_DATA_URL: Final = re.compile(rb"data:[\w.+/-]*(?:;[\w.+=-]+)*;base64,")
_ALPHABET: Final = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_BRACKETS: Final = re.compile(rb"[\[\]{}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledBytes:
    """A long base64 string, decoded into a file that belongs to whoever was given this handle."""

    path: Path
    size_bytes: int


SpooledJson: TypeAlias = (
    "dict[str, SpooledJson] | list[SpooledJson] | str | int | float | bool | SpooledBytes | None"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLimits:
    """How much a body may hold. The defaults fit one picture; see `reliability.md` 2.3."""

    total_bytes: int = 64 * 1024 * 1024
    """The body as it arrives."""
    blob_bytes: int = 48 * 1024 * 1024
    """One decoded string."""
    document_bytes: int = 1024 * 1024
    """Everything that is not decoded into files: it is held in memory."""
    depth: int = 32
    """Objects and lists within each other."""
    text_bytes: int = 4096
    """A string up to this length, as written, is text whatever it looks like."""


class SpoolOverflow(Exception):
    """A body is larger than a limit. The message names the limit."""


class SpoolMalformed(Exception):
    """A body is no JSON document, or a long base64 string in it is broken. The message quotes nothing of it."""


async def spool_json(chunks: AsyncIterator[bytes], directory: Path, limits: SpoolLimits) -> SpooledJson:
    """Read a JSON document to its end, with long base64 strings as files in `directory`, which must exist.

    On any error, cancellation included, the files are gone again.

    Raises:
        SpoolOverflow: a limit was passed.
        SpoolMalformed: the body is no JSON document, or ended early.
    """
    parser = SpoolParser(directory, limits)
    try:
        batch: list[bytes] = []
        held_bytes = 0
        async for chunk in chunks:
            batch.append(chunk)
            held_bytes += len(chunk)
            if held_bytes >= _BATCH_BYTES:
                await asyncio.to_thread(parser.feed, b"".join(batch))
                batch, held_bytes = [], 0
        rest = b"".join(batch)
        if parser.received_bytes + held_bytes <= _INLINE_BYTES:
            parser.feed(rest)
            return parser.close()
        await asyncio.to_thread(parser.feed, rest)
        return await asyncio.to_thread(parser.close)
    except BaseException:
        parser.discard()
        raise


class SpoolParser:
    """Feed it a JSON document in any pieces, then `close` it; or `discard` it, from any thread at any time."""

    def __init__(self, directory: Path, limits: SpoolLimits) -> None:
        self._directory = directory
        self._limits = limits
        self._lock = threading.Lock()
        self._is_discarded = False
        self._received_bytes = 0
        self._document = bytearray()
        self._depth = 0
        # Stands for each blob in the document; nobody can write it without knowing it.
        self._mark = secrets.token_hex(16)
        self._blobs: list[_Blob] = []
        self._rest = b""
        self._in_string = False
        self._held = bytearray()
        self._is_text = False
        self._blob: _Blob | None = None

    @property
    def received_bytes(self) -> int:
        """How much has been fed so far."""
        return self._received_bytes

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the document.

        Raises:
            SpoolOverflow: a limit was passed.
            SpoolMalformed: a long base64 string is broken, or a bracket closes nothing.
        """
        with self._lock:
            if self._is_discarded:
                return
            self._received_bytes += len(chunk)
            if self._received_bytes > self._limits.total_bytes:
                raise SpoolOverflow(f"the body is larger than {self._limits.total_bytes} bytes")
            self._scan(self._rest + chunk if self._rest else chunk)

    def close(self) -> SpooledJson:
        """Return the document. The files in it are the caller's from now on; those that it does not show are gone.

        Raises:
            SpoolMalformed: what was fed is no JSON document.
        """
        with self._lock:
            if self._in_string or self._is_discarded:
                raise SpoolMalformed("the body ends within a string")
            try:
                tree = json.loads(self._document.decode("utf-8-sig"), parse_constant=_refuse_constant)
            except (ValueError, RecursionError) as exc:
                raise SpoolMalformed("the body is not a JSON document") from exc
            handles = {self._place(number): blob.handle for number, blob in enumerate(self._blobs)}
            shown: set[Path] = set()
            result = _with_handles(tree, handles, shown)
            for blob in self._blobs:
                if blob.path not in shown:
                    blob.discard()
            return result

    def discard(self) -> None:
        """Remove every file; whatever is fed after this is ignored."""
        with self._lock:
            self._is_discarded = True
            for blob in self._blobs:
                blob.discard()

    def _scan(self, data: bytes) -> None:
        position = 0
        self._rest = b""
        while position < len(data):
            quote = data.find(b'"', position)
            if not self._in_string:
                end = len(data) if quote < 0 else quote + 1
                self._outside(data[position:end])
                self._in_string = quote >= 0
                position = end
                continue
            end = len(data) if quote < 0 else quote
            piece = data[position:end]
            if _ends_in_backslash(piece):
                if quote < 0:
                    # What it escapes is yet to come.
                    self._rest = piece[-1:]
                    self._inside(piece[:-1])
                    return
                self._inside(piece + b'"')
            else:
                self._inside(piece)
                if quote >= 0:
                    self._end_string()
            position = end + 1

    def _outside(self, piece: bytes) -> None:
        for bracket in _BRACKETS.finditer(piece):
            self._depth += 1 if bracket[0] in {b"[", b"{"} else -1
            if self._depth > self._limits.depth:
                raise SpoolOverflow(f"the document is nested deeper than {self._limits.depth}")
            if self._depth < 0:
                raise SpoolMalformed("the body is not a JSON document")
        self._keep(piece)

    def _inside(self, piece: bytes) -> None:
        if self._blob is not None:
            self._blob.feed(piece)
        elif self._is_text:
            self._keep(piece)
        else:
            self._held += piece
            if len(self._held) > self._limits.text_bytes:
                self._decide()

    def _decide(self) -> None:
        # By the same number of bytes in whatever pieces they came, so that chunking changes nothing.
        head = _base64_of(bytes(self._held[: self._limits.text_bytes]))
        if head is None:
            self._is_text = True
            self._keep(self._held)
        else:
            self._blob = _Blob(self._directory, self._limits.blob_bytes)
            self._keep(self._place(len(self._blobs)).encode())
            self._blobs.append(self._blob)
            self._blob.feed(bytes(self._held))
        self._held = bytearray()

    def _end_string(self) -> None:
        if self._blob is not None:
            self._blob.close()
        self._keep(self._held + b'"')
        self._held = bytearray()
        self._blob, self._is_text, self._in_string = None, False, False

    def _keep(self, piece: bytes | bytearray) -> None:
        self._document += piece
        if len(self._document) > self._limits.document_bytes:
            raise SpoolOverflow(f"the document holds more than {self._limits.document_bytes} bytes of text")

    def _place(self, number: int) -> str:
        return f"{self._mark}-{number}"


class _Blob:
    """One string on its way into a file."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        # Open from the string's first byte to its last, over many calls.
        self._file: IO[bytes] = tempfile.NamedTemporaryFile(  # noqa: SIM115
            dir=directory, prefix="spool-", delete=False
        )
        self.path = Path(self._file.name)
        self._size_bytes = 0
        self._is_begun = False
        self._is_padded = False
        self._raw = b""
        self._quantum = b""

    @property
    def handle(self) -> SpooledBytes:
        return SpooledBytes(path=self.path, size_bytes=self._size_bytes)

    def feed(self, piece: bytes) -> None:
        raw = self._raw + piece
        whole = _WHOLE_ESCAPES.match(raw) if b"\\" in raw else None
        end = len(raw) if whole is None else whole.end()
        self._raw = raw[end:]
        if len(self._raw) > _LONGEST_ESCAPE:
            raise SpoolMalformed("a long base64 string holds a broken escape")
        text = raw if whole is None else _unescaped(raw[:end])
        if not self._is_begun:
            # The first piece is longer than any prefix, so the whole of it is here.
            self._is_begun = True
            prefix = _DATA_URL.match(text)
            text = text[prefix.end() :] if prefix else text
        text = self._quantum + text
        end = len(text) - len(text) % 4
        self._quantum = text[end:]
        self._write(text[:end])

    def close(self) -> None:
        if self._raw:
            raise SpoolMalformed("a long base64 string holds a broken escape")
        # Some writers leave the padding out.
        self._write(self._quantum + b"=" * (-len(self._quantum) % 4))
        self._file.close()

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _write(self, text: bytes) -> None:
        if not text:
            return
        if self._is_padded:
            raise SpoolMalformed("a long base64 string goes on after its padding")
        self._is_padded = text.endswith(b"=")
        try:
            decoded = pybase64.b64decode(text, validate=True)
        except binascii.Error as exc:
            raise SpoolMalformed("a long base64 string holds something else") from exc
        self._size_bytes += len(decoded)
        if self._size_bytes > self._limit_bytes:
            raise SpoolOverflow(f"a base64 string decodes to more than {self._limit_bytes} bytes")
        self._file.write(decoded)


def _ends_in_backslash(piece: bytes) -> bool:
    # An even number of them is a row of escaped backslashes.
    return piece.endswith(b"\\") and (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 1


def _base64_of(head: bytes) -> bytes | None:
    """The base64 text at the start of a string; None when it is something else."""
    if b"\\" in head:
        whole = _WHOLE_ESCAPES.match(head)
        try:
            head = _unescaped(head[: whole.end()] if whole else b"")
        except SpoolMalformed:
            return None
    prefix = _DATA_URL.match(head)
    text = head[prefix.end() :] if prefix else head
    return text if _ALPHABET.fullmatch(text) else None


def _unescaped(raw: bytes) -> bytes:
    """Undo JSON's escapes and drop line breaks, which some writers put into base64."""
    if b"\\" not in raw:
        return raw
    try:
        text: str = json.loads(b'"' + raw + b'"')
        return text.encode("ascii").translate(None, b"\r\n")
    except ValueError as exc:
        raise SpoolMalformed("a long base64 string holds something else") from exc


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _with_handles(value: Any, handles: dict[str, SpooledBytes], shown: set[Path]) -> SpooledJson:
    match value:
        case str():
            handle = handles.get(value)
            if handle is None:
                return value
            shown.add(handle.path)
            return handle
        case dict():
            if handles.keys() & value.keys():
                raise SpoolMalformed("a key of the document is a long base64 string")
            return {key: _with_handles(item, handles, shown) for key, item in value.items()}
        case list():
            return [_with_handles(item, handles, shown) for item in value]
        case _:
            scalar: int | float | bool | None = value
            return scalar
