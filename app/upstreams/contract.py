"""The contract between an adapter, which only translates, and the caller, which only acts.

An adapter is three pure functions over the values in this file: no client, clock, environment, logger or retry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol, TypeAlias, runtime_checkable

from app.domain.requests import ImageRequest
from app.domain.results import Usage
from app.kit.json import Json
from app.kit.spool import SpooledBytes, SpooledJson


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an attempt is sent."""

    base_url: str
    """Without a trailing slash."""
    model: str
    """The name that the upstream knows the model by."""
    pictures: int
    """How many pictures this attempt buys: k of the job's n."""
    options: Mapping[str, Json] = field(default_factory=dict)
    """The adapter's own options from the catalog."""
    is_streamed: bool = False
    """Whether the answer is to come as events, with the partial pictures that the request asks for."""
    can_link: bool = False
    """Whether the vendor can fetch a stored input from the gateway by an `InputLink`."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A stored input picture, put into a body by the caller while it streams."""

    file_id: str


@dataclass(frozen=True, slots=True)
class InputDataUrl:
    """A stored input picture, to stand in a JSON body as a base64 data URL."""

    file_id: str
    media_type: str


@dataclass(frozen=True, slots=True)
class InputLink:
    """A stored input picture, to stand in a JSON body as a short-lived signed link to the gateway."""

    file_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A file in a multipart form."""

    name: str
    filename: str
    media_type: str
    content: InputFile


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonBody:
    """A JSON document; `InputDataUrl` and `InputLink` may stand in it where a string would."""

    value: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipartBody:
    """A multipart form: text fields first, then files, each in order."""

    fields: tuple[tuple[str, str], ...]
    files: tuple[FilePart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP request to an upstream. The caller adds the credential, and only on the upstream's own origin."""

    method: str
    url: str
    body: JsonBody | MultipartBody | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Blob: TypeAlias = SpooledBytes
"""A long base64 string of a reply, already decoded into a spool file; whoever gets the reply removes it."""

ReplyJson: TypeAlias = SpooledJson


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One complete HTTP answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: ReplyJson
    """The JSON document with a `Blob` for each long base64 string; None when `is_json` is False."""
    is_json: bool
    is_stream: bool = False
    """The answer came as events, each of which was handed on already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One server-sent event of an answer that comes as a stream."""

    name: str
    """Empty when the stream names none."""
    data: ReplyJson


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePicture:
    """One picture as the upstream hands it over: decoded bytes, or a link to download."""

    source: Blob | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The upstream took the order and will be asked again."""

    ticket: str
    poll_after_s: float
    """The vendor's advice, before jitter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The upstream made the pictures. The other fields are what it says of them; None where it does not say."""

    pictures: tuple[RemotePicture, ...]
    usage: Usage | None = None
    cost_usd: Decimal | None = None
    """What the vendor says it charged for this attempt."""
    size: str | None = None
    quality: str | None = None
    background: str | None = None
    output_format: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """A coarse version of a picture that is still being made."""

    picture: RemotePicture
    index: int
    """From 0, in the order of refinement."""


Outcome: TypeAlias = Waiting | Finished


class Adapter(Protocol):
    """One vendor's wire format as a translation table.

    `read` raises `UpstreamFailure` for every answer that made no picture. `resume` and the `ticket` of `read` are
    used only by vendors that answer with a ticket. A vendor that streams has a `StreamingAdapter`.
    """

    def submit(self, request: ImageRequest, target: Target) -> Call:
        """Write the request that buys `target.pictures` pictures."""
        ...

    def resume(self, ticket: str, target: Target) -> Call:
        """Write the request that asks after an order already placed; it never buys."""
        ...

    def read(self, reply: Reply, ticket: str | None) -> Outcome:
        """Read an answer to `submit` (ticket None) or `resume`.

        Raises:
            UpstreamFailure: the answer made no picture, and says so in one of the failure kinds.
        """
        ...


@runtime_checkable
class StreamingAdapter(Adapter, Protocol):
    """An adapter whose vendor can answer with events while it draws."""

    def read_event(self, event: ServerEvent) -> Partial | Finished | None:
        """Read one event: a coarse picture, a finished one, or None for an event of no interest.

        Raises:
            UpstreamFailure: the event says that no picture will come.
        """
        ...
