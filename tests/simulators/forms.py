"""Reading a multipart form strictly, as a vendor does: no library of the gateway's stands in between."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

_NAME: Final = re.compile(rb'form-data;.*?\bname="([^"]*)"')
_FILENAME: Final = re.compile(rb'\bfilename="([^"]*)"')
_BOUNDARY: Final = re.compile(r'multipart/form-data;.*\bboundary="?([^";]+)"?')


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file of a form."""

    name: str
    """The part's name."""
    filename: str
    media_type: str
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """The digest of the content, in hex."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Form:
    """The parts of a form, in their order."""

    fields: dict[str, str]
    files: tuple[Upload, ...]


class BadForm(ValueError):
    """The body is no well-formed form."""


def read_form(content_type: str, body: bytes) -> Form:
    """Split a form into its parts.

    Raises:
        BadForm: no boundary, no closing delimiter, or a part without a name.
    """
    boundary = _BOUNDARY.match(content_type)
    if boundary is None:
        raise BadForm(f"no boundary in {content_type!r}")
    delimiter = b"\r\n--" + boundary[1].encode()
    first, *parts = (b"\r\n" + body).split(delimiter)
    if first or not parts or not parts[-1].startswith(b"--"):
        raise BadForm("the form does not begin and end with its boundary")
    fields: dict[str, str] = {}
    files: list[Upload] = []
    for part in parts[:-1]:
        head, gap, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not gap or name is None:
            raise BadForm("a part of the form has no name")
        filename = _FILENAME.search(head)
        if filename is None:
            fields[name[1].decode()] = content.decode()
            continue
        media_type = re.search(rb"(?i)content-type:\s*([^\r\n]+)", head)
        files.append(
            Upload(
                name=name[1].decode(),
                filename=filename[1].decode(),
                media_type=media_type[1].decode() if media_type else "text/plain",
                content=content,
            )
        )
    return Form(fields, tuple(files))
