"""What crosses HTTP, for `/openapi.json` alone.

Requests are read by `parameters.py`, answers written by `rendering.py`.
"""

from typing import Annotated, Any, Final, Literal, TypeAlias

from fastapi import Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

BEARER: Final = Security(HTTPBearer(auto_error=False, description="A team's API key."))
"""Documents that an endpoint wants a key; the middleware has checked it long before."""

# 16 x 16 pixels of one blue.
_EXAMPLE_URL: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR4nGOYsOECSYhhVMOohuGrAQByaBAfxIpU/wAA"
    "AABJRU5ErkJggg=="
)
Size: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$")]
_WEB: Final = "^https?://"
WebhookUrl: TypeAlias = Annotated[str, StringConstraints(pattern=_WEB)]
Metadata: TypeAlias = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r'^[^\[\]"\\\x00-\x1f\x7f]+$', max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]


class GenerationRequest(BaseModel):
    """A request for pictures from a prompt. Null means: not given. Unknown members go to vendors that take them."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {"model": "gpt-image-2", "prompt": "a lighthouse at dusk", "size": "1024x1024"}
        },
    )

    model: str = Field(min_length=1, description="A name of `GET /v1/models`.")
    prompt: str = Field(min_length=1, max_length=32_000, description="What to draw.")
    n: int | None = Field(None, ge=1, le=10, description="How many pictures.")
    size: Size | None = Field(
        None, description="`auto` or `WIDTHxHEIGHT` in pixels; what the model takes, `GET /v1/models` tells."
    )
    quality: str | None = Field(None, description="`auto`, `low`, `medium`, `high`, or what the model adds.")
    background: str | None = Field(None, description="`auto`, `opaque` or `transparent`.")
    output_format: str | None = Field(None, description="`png`, `jpeg` or `webp`.")
    output_compression: int | None = Field(None, ge=0, le=100, description="Percent; jpeg and webp only.")
    moderation: str | None = Field(None, description="`auto` or `low`.")
    response_format: Literal["b64_json", "url"] | None = Field(
        None, description="The pictures themselves, or signed links to the gateway's copies."
    )
    stream: bool | None = Field(None, description="Answer with server-sent events.")
    partial_images: int | None = Field(
        None, ge=0, le=3, description="Coarse pictures to show on the way, each at its price; needs `stream`."
    )
    user: str | None = Field(None, description="The end user, for the vendor.")
    safety_identifier: str | None = Field(None, description="The end user, for the vendor; replaces `user`.")
    is_async: bool | None = Field(
        None, alias="async", description="As `async` in the query; not with `stream`."
    )
    metadata: Metadata | None = Field(None, description="Up to 16 pairs, kept with the job.")
    webhook_url: WebhookUrl | None = Field(None, description="Who is told how the job ended.")
    priority: Literal["high", "normal", "low"] | None = Field(None, description="Within the team's own jobs.")
    cancel_after_s: float | None = Field(
        None, gt=0, description="Seconds after which the job is cancelled, unless it is final by then."
    )


class ImageReference(BaseModel):
    """A picture to edit, named in exactly one of two ways."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    image_url: str | None = Field(None, min_length=1, description="An `https:` or a `data:` URL.")
    file_id: str | None = Field(None, min_length=1, description="An upload or a result: `POST /v1/files`.")


class EditRequest(GenerationRequest):
    """A request for pictures from pictures, as JSON."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "gpt-image-2",
                "prompt": "make it snow",
                "images": [{"image_url": _EXAMPLE_URL}],
            }
        },
    )

    images: list[ImageReference] = Field(min_length=1, max_length=16)
    mask: ImageReference | None = Field(
        None, description="A PNG with an alpha channel, of the first picture's size."
    )
    input_fidelity: str | None = Field(None, description="`high` or `low`, where the model knows it.")


class EditForm(GenerationRequest):
    """A request for pictures from pictures, as a form; every field but the files is text."""

    model_config = ConfigDict(json_schema_extra={})

    image: list[bytes] = Field(
        min_length=1, max_length=16, description="PNG, JPEG or WebP; also as `image[]`, also repeated."
    )
    mask: bytes | None = Field(None, description="A PNG with an alpha channel, of the first picture's size.")
    input_fidelity: str | None = Field(None, description="`high` or `low`, where the model knows it.")


class TokenDetails(BaseModel):
    """Tokens by kind."""

    image_tokens: int
    text_tokens: int


class Usage(BaseModel):
    """Tokens as the vendor reported them."""

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int
    output_tokens_details: TokenDetails
    total_tokens: int


class Picture(BaseModel):
    """One picture: its bytes, or a link."""

    b64_json: str | None = None
    url: str | None = None


class ImagesResponse(BaseModel):
    """Finished pictures."""

    created: int = Field(description="Unix seconds.")
    background: str | None = None
    data: list[Picture]
    output_format: str | None = None
    quality: str | None = None
    size: str | None = Field(None, description="`WIDTHxHEIGHT` in pixels, as made.")
    usage: Usage | None = None
    adjusted: list[str] | None = Field(None, description="Where the result differs from the request.")


class Error(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str
    job_id: str | None = None


class ErrorAnswer(BaseModel):
    """OpenAI's error envelope."""

    error: Error


class ChatMessage(BaseModel):
    """A message of a conversation; only the last one of the role `user` counts."""

    model_config = ConfigDict(extra="allow")

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = Field(
        None, description="The prompt, or parts: `text`, and `image_url` or `file` for each picture to edit."
    )


class ChatRequest(BaseModel):
    """A request for pictures in the form of a conversation."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "gpt-image-2",
                "messages": [{"role": "user", "content": "a lighthouse at dusk"}],
            }
        },
    )

    model: str = Field(min_length=1, description="A name of `GET /v1/models`.")
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = Field(None, description="Answer with chunks.")
    modalities: list[Literal["image", "text"]] | None = None
    image_config: dict[str, str] | None = Field(
        None, description="`aspect_ratio`, such as `16:9`, and `image_size`: `1K`, `2K` or `4K`."
    )
    n: int | None = Field(None, ge=1, le=10, description="How many pictures, each a choice of its own.")
    size: Size | None = Field(
        None, description="`auto` or `WIDTHxHEIGHT` in pixels; not beside `image_config`."
    )
    quality: str | None = Field(None, description="`auto`, `low`, `medium`, `high`, or what the model adds.")


class ChatCompletion(BaseModel):
    """Finished pictures in the form of a chat model's answer."""

    id: str
    object: Literal["chat.completion"]
    created: int = Field(description="Unix seconds.")
    model: str
    choices: list[dict[str, Any]] = Field(
        description="One for each picture: a link in `message.content`, the picture in `message.images`."
    )
    usage: dict[str, Any] | None = None
    adjusted: list[str] | None = Field(None, description="Where the result differs from the request.")


class CustomSize(BaseModel):
    """A size in pixels."""

    model_config = ConfigDict(extra="forbid")

    width: int = Field(ge=1)
    height: int = Field(ge=1)


class ImaRouterGeneration(BaseModel):
    """ImaRouter's request for pictures from a prompt."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"prompt": "a lighthouse at dusk", "imageSize": "landscape_4_3"}},
    )

    prompt: str = Field(min_length=1, max_length=32_000)
    imageSize: (  # noqa: N815 - a name of the API
        Literal[
            "square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9", "auto"
        ]
        | CustomSize
        | None
    ) = None
    quality: str | None = Field(None, description="`low`, `medium` or `high`.")
    numImages: int | None = Field(None, ge=1, le=10)  # noqa: N815 - a name of the API
    outputFormat: str | None = Field(None, description="`png`, `jpeg` or `webp`.")  # noqa: N815 - a name of the API
    webhookUrl: WebhookUrl | None = Field(  # noqa: N815 - a name of the API
        None, description="Who is told how the job ended."
    )


class ImaRouterEdit(ImaRouterGeneration):
    """ImaRouter's request for pictures from pictures."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"prompt": "make it snow", "imageUrls": [_EXAMPLE_URL]}},
    )

    imageUrls: list[str] = Field(  # noqa: N815 - a name of the API
        min_length=1, max_length=16, description="`https:` or `data:` URLs."
    )
    maskUrl: str | None = Field(None, description="A PNG with an alpha channel.")  # noqa: N815 - a name of the API


class ImaRouterAccepted(BaseModel):
    """A job just taken in, in ImaRouter's words."""

    id: str
    status: Literal["queued", "running", "completed", "failed"]
    adjusted: list[str] | None = Field(None, description="Where the job differs from the request.")


class ImaRouterPicture(BaseModel):
    """A finished picture."""

    url: str = Field(description="A signed link, which needs no key.")
    width: int
    height: int
    contentType: str  # noqa: N815 - a name of the API


class ImaRouterJob(ImaRouterAccepted):
    """A job in ImaRouter's words."""

    output: list[ImaRouterPicture]
    error: str | None
    usage: dict[str, Any] | None = Field(description="`cost` in USD, and tokens where they are known.")


class ImaRouterError(BaseModel):
    """What went wrong, in ImaRouter's words."""

    error: str
    code: str


class AcceptedJob(BaseModel):
    """A job just taken in."""

    id: str
    object: Literal["image_job"]
    status: Literal["queued", "in_progress", "succeeded", "failed", "cancelled", "expired"]
    model: str
    created_at: int = Field(description="Unix seconds.")
    expires_at: int = Field(description="Unix seconds; until then pictures are kept.")
    polling_url: str


class Cost(BaseModel):
    """What a job cost so far."""

    usd: str | None = Field(description="A decimal; null when a price is not known.")
    estimated: bool
    unpriced: bool | None = None


class AttemptSummary(BaseModel):
    """One call to one upstream."""

    upstream: str
    outcome: str = Field(description="`succeeded`, `pending`, or why it made no picture.")
    cost_usd: str | None
    started_at: int
    duration_ms: int | None


class LatePicture(BaseModel):
    """A picture that arrived after its job had ended."""

    file_id: str
    url: str


class ImageJob(AcceptedJob):
    """A job with everything about it."""

    operation: Literal["image.generation", "image.edit"]
    started_at: int | None = Field(description="Unix seconds; null until a vendor is asked.")
    completed_at: int | None
    unsigned_urls: list[str] = Field(description="Signed links to the pictures, which need no key.")
    result: ImagesResponse | None
    cost: Cost
    upstream: str | None
    attempts: list[AttemptSummary]
    late: list[LatePicture]
    error: Error | None
    metadata: dict[str, str]


class JobList(BaseModel):
    """A page of jobs, newest first."""

    object: Literal["list"]
    data: list[ImageJob]
    has_more: bool
    first_id: str | None
    last_id: str | None


class ModelObject(BaseModel):
    """A model, as OpenAI lists it, and what is known of it here."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    shutdown_date: str | None
    darkroom: dict[str, Any] = Field(description="Capabilities, and each route with its prices.")


class ModelList(BaseModel):
    """The models of the catalog, or a page of them."""

    object: Literal["list"]
    data: list[ModelObject]
    has_more: bool
    first_id: str | None
    last_id: str | None


class FileObject(BaseModel):
    """A stored picture."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["processed"]


class Health(BaseModel):
    """Whether the process can serve."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = Field(description="Each part, `ok` or what is wrong with it.")
    warnings: list[str] = Field(description="What works, but not as configured.")


ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request cannot be served as it is."},
    "5XX": {
        "model": ErrorAnswer,
        "description": "The gateway or an upstream failed; `x-should-retry` says more.",
    },
}


EVENTS: Final[dict[str, Any]] = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "description": "Server-sent events, one after the other.",
            "required": ["data"],
            "properties": {
                "event": {"type": "string", "description": "What it tells; none in a chat completion."},
                "id": {"type": "string", "description": "For `Last-Event-ID`; of a job's events alone."},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "description": "A JSON object; `[DONE]` after a chat completion.",
                },
            },
        },
        "example": 'event: job.final\nid: 4-0\ndata: {"id": "job_1", "object": "image_job", "status": "succeeded"}\n\n',
    }
}
"""What an endpoint that can stream answers besides JSON."""


IMAROUTER_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {**answer, "model": ImaRouterError} for status, answer in ERRORS.items()
}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a body that an endpoint reads by itself, with all that it refers to in its place."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            reference = value.get("$ref")
            if isinstance(reference, str):
                return filled(parts[reference.rpartition("/")[2]])
            return {name: filled(item) for name, item in value.items()}
        return [filled(item) for item in value] if isinstance(value, list) else value

    found: dict[str, Any] = filled(schema)
    return found


def form_of(model: type[BaseModel]) -> dict[str, Any]:
    """The same, of a form: nothing in it is null, and `metadata` comes as one field for each pair."""
    schema = schema_of(model)
    fields: dict[str, Any] = {}
    for name, field in schema["properties"].items():
        kinds = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
        kept = {key: value for key, value in field.items() if key not in {"anyOf", "default"}}
        fields[name] = kept | (kinds[0] if kinds else {})
    del fields["metadata"]
    return schema | {"properties": fields}


def query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Document a parameter of the query."""
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def header(name: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Document a header of the request."""
    kind = schema or {"type": "string"}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": kind}


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"]
    data: list[FileObject]
    has_more: bool
    first_id: str | None
    last_id: str | None


class DeletedFile(BaseModel):
    """What is left of a file."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class RouteCandidate(BaseModel):
    """A route that would be asked."""

    upstream: str
    model: str = Field(description="The name that the upstream knows.")
    pictures_per_attempt: int = Field(
        description="How many of the request's pictures one call makes at most."
    )
    estimated_cost_usd: str | None = Field(
        description="For all pictures, as a decimal; null when the route has no price."
    )


class RouteLeftOut(BaseModel):
    """A route that would not be asked, and why."""

    upstream: str
    model: str
    kind: Literal["unable", "off", "later"] = Field(
        description="It cannot do the request; it is off until somebody acts; it comes back by itself."
    )
    reason: str
    param: str | None = Field(description="The parameter that an unable route fails on.")
    retry_at: int | None = Field(description="Unix seconds; when it comes back, where that is known.")


class RouteAnswer(BaseModel):
    """Who would make the pictures of a request."""

    object: Literal["image_route"]
    model: str
    operation: Literal["image.generation", "image.edit"]
    policy: Literal["priority", "cheapest", "fastest", "weighted"]
    routes: list[RouteCandidate] = Field(description="In the order in which they would be asked.")
    left_out: list[RouteLeftOut] = Field(description="Each other route of the model.")
    error: Error | None = Field(description="What a call would be told if no route can serve it, else null.")


IDEMPOTENCY_KEY: Final = header(
    "Idempotency-Key",
    "The same key and body get the same job, for 30 days.",
    {"type": "string", "pattern": "^[ -~]{1,255}$", "example": "order-4711"},
)
_PREFER: Final = header("Prefer", "`respond-async` does the same as `async=true`.")
_METADATA: Final = header(
    "x-darkroom-metadata",
    "As `metadata` in the body: a JSON object.",
    {"type": "string", "example": '{"order": "4711"}'},
)
_WEBHOOK_URL: Final = header(
    "x-darkroom-webhook-url",
    "As `webhook_url` in the body: who is told how the job ended.",
    {"type": "string", "pattern": _WEB},
)
_PRIORITY: Final = header(
    "x-darkroom-priority", "As `priority` in the body.", {"type": "string", "enum": ["high", "normal", "low"]}
)
_CANCEL_AFTER: Final = header(
    "x-darkroom-cancel-after-s",
    "As `cancel_after_s` in the body: seconds after which the job is cancelled, unless it is final by then.",
    {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,6})?$", "example": "90"},
)
JOB_HEADERS: Final = [IDEMPOTENCY_KEY, _METADATA, _WEBHOOK_URL, _PRIORITY, _CANCEL_AFTER]
"""What a call that makes a job may say of it in headers."""
CALL_PARAMETERS: Final = [
    query("async", "Answer with the job instead of its result.", {"type": "boolean", "default": False}),
    _PREFER,
    *JOB_HEADERS,
]
"""The same, of a call that can wait for its job or not."""
