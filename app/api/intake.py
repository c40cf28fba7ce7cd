"""The input pictures of a request, whatever API it came by: read with its body, taken in, and handed to its job."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fastapi import Request

from app.api.bodies import check_framing, check_object
from app.api.errors import RequestTooLarge
from app.api.forms import FormLimits, UploadedFile
from app.assets.inputs import Inputs, Taken
from app.domain.errors import InvalidValue
from app.domain.requests import InputPicture
from app.jobs.service import JobService
from app.jobs.submissions import Submission, Submitted
from app.kit.json import Json
from app.kit.spool import SpooledBytes, SpoolLimits, SpoolMalformed, SpoolOverflow, spool_json

DATA_URL_CHARS: Final = 20_971_520
"""OpenAI's limit of an `image_url`."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input as the client handed it in."""

    given: UploadedFile | SpooledBytes | str
    """A file of the form, a data URL that is in a file already, or a URL."""
    file_id: str | None
    param: str
    digest: str
    """What stands for it in the fingerprint."""


class Intake:
    """The inputs of one request: in storage, and removed again on closing unless a job took them over."""

    def __init__(self, inputs: Inputs, team_id: str, folder: Path) -> None:
        self._inputs = inputs
        self._team_id = team_id
        self._folder = folder
        self._taken: list[Taken] = []

    async def take(
        self, images: Sequence[Source], mask: Source | None
    ) -> tuple[tuple[InputPicture, ...], InputPicture | None]:
        """Take all inputs in, in their order.

        Raises:
            GatewayError: one cannot be fetched, or is no picture that can be an input.
        """
        taken = [await self._take(source) for source in images]
        taken_mask = None if mask is None else await self._take(mask)
        return tuple(item.as_input() for item in taken), None if taken_mask is None else taken_mask.as_input()

    async def submit(self, jobs: JobService, submission: Submission) -> Submitted:
        """Submit the request together with its inputs, which are the job's from then on.

        Raises:
            GatewayError: as `JobService.submit`.
        """
        inputs = tuple(item.picture for item in self._taken)
        submitted = await jobs.submit(replace(submission, inputs=inputs))
        if not submitted.is_replay:
            self._taken = []
        return submitted

    async def aclose(self) -> None:
        """Remove what no job took over."""
        await self._inputs.discard(self._taken)

    async def _take(self, source: Source) -> Taken:
        if source.file_id is not None:
            taken = await self._inputs.take_file(
                source.file_id, self._team_id, self._folder, param=source.param
            )
        elif isinstance(source.given, str):
            taken = await self._inputs.take_link(source.given, self._folder, param=source.param)
        else:
            taken = await self._inputs.take(source.given.path, param=source.param)
        self._taken.append(taken)
        return taken


async def read_picture_json(request: Request, folder: Path, limits: FormLimits) -> dict[str, Any]:
    """Read a JSON body that may hold pictures as data URLs: those are files in `folder`, as `SpooledBytes`.

    Raises:
        RequestTooLarge: a limit was passed; the rest is not read.
        InvalidValue: it is no JSON object, or holds something ambiguous.
    """
    check_framing(request)
    # Base64 is a third longer than what it stands for.
    bounds = SpoolLimits(total_bytes=limits.total_bytes, blob_bytes=DATA_URL_CHARS * 3 // 4)
    try:
        document: Any = await spool_json(request.stream(), folder, bounds)
    except SpoolOverflow as exc:
        raise RequestTooLarge(f"The request body is too large: {exc}.") from exc
    except SpoolMalformed as exc:
        raise InvalidValue(f"The request body is not valid JSON: {exc}.") from exc
    return check_object(document)


def linked(value: object, param: str) -> Source:
    """An input that is named by its URL. Reads it when it came in the body, so not for the event loop.

    Raises:
        InvalidValue: it is no URL.
    """
    if isinstance(value, SpooledBytes):
        return Source(given=value, file_id=None, param=param, digest=digest_of(value))
    if not isinstance(value, str) or not value:
        raise InvalidValue(f"Invalid '{param}': expected a URL as a string.", param=param)
    return Source(given=value, file_id=None, param=param, digest=f"image_url:{value}")


def filed(file_id: str, param: str) -> Source:
    """An input that is an earlier file of the team."""
    return Source(given=file_id, file_id=file_id, param=param, digest=f"file_id:{file_id}")


def digest_of(picture: SpooledBytes) -> str:
    """SHA-256 of a picture that came in the body, in hex. Reads it, so not for the event loop."""
    with picture.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(document: Any) -> Json:
    """The document with a digest in the place of each picture, for the fingerprint. Not for the event loop."""
    match document:
        case SpooledBytes():
            return digest_of(document)
        case Mapping():
            return {name: canonical(value) for name, value in document.items()}
        case list():
            return [canonical(item) for item in document]
        case _:
            plain: Json = document
            return plain
