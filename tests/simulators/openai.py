"""A local OpenAI: generations, edits, streams and models, after the checklist of upstreams.md 1.15.

By hand: `python -m tests.simulators.openai --port 9101`.
"""

import asyncio
import base64
import io
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import httpx2
from PIL import Image, UnidentifiedImageError

from tests.simulators import openai_format as wire_format
from tests.simulators.forms import BadForm, Upload, read_form
from tests.simulators.ledger import Call
from tests.simulators.openai_format import Model, Order, Refused
from tests.simulators.pictures import broken, noise, picture
from tests.simulators.script import Occasion, Step
from tests.simulators.server import BREAKAGES, Simulator, arguments, before_work, deliver, json_answer, run
from tests.simulators.wire import Answer, Request

API_KEY: Final = "sk-sim-openai-0123456789abcdef"

_GENERATIONS: Final = "/v1/images/generations"
_EDITS: Final = "/v1/images/edits"
_MEDIA_TYPES: Final = ("image/jpeg", "image/png", "image/webp")
_MAX_UPLOAD_BYTES: Final = 50 * 1024 * 1024
_MAX_URL_CHARS: Final = 20_971_520

PICTURE_KINDS: Final = frozenset({"few", "many", "broken_picture", "wrong_size", "wrong_format"})
"""The kinds of step that make other pictures than were ordered."""

_STREAM_KINDS: Final = frozenset({"ok", "error", "done", "comment", "hang"})


class OpenAi(Simulator):
    """OpenAI. Beside the transport's kinds of step it knows:

    `429[:RETRY-AFTER | :ms=N | :text=12s]`, `401`, `402`, `403`, `404`, `409`, `500`, `503`, `slow_down`, every
    quota and billing code of upstreams.md 1.11, `invalid_value[:PARAM]`, `unknown_parameter[:PARAM]`,
    `moderation_blocked[:output]`, `content_policy_violation`, `error_in_200`, `envelope:STATUS`; `few[:K]`,
    `many[:K]`, `broken_picture[:cut|noise|empty|tail]`, `wrong_size[:WxH]`, `wrong_format[:NAME]`. On `stream`,
    between partial and final pictures: `error`, `done` (ends with `[DONE]`), `comment`.
    """  # noqa: D415 - the list is the point

    name: ClassVar[str] = "openai"
    kinds: ClassVar[frozenset[str]] = BREAKAGES | wire_format.REFUSALS | PICTURE_KINDS | _STREAM_KINDS
    key_prefix: ClassVar[str] = "sk-"

    def __init__(
        self,
        *,
        api_key: str = API_KEY,
        models: Mapping[str, Model] = wire_format.MODELS,
        latency_s: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
        noise_pictures: bool = False,
        idempotent: bool = False,
    ) -> None:
        super().__init__(api_key=api_key, latency_s=latency_s, seed=seed)
        self.models = models
        self.noise_pictures = noise_pictures
        """PNGs do not compress (12.6 MB for 2048x2048) and are all the same."""
        self.idempotent = idempotent
        """A repeated `Idempotency-Key` gets the same pictures again, unbilled. OpenAI documents no such thing."""
        self._seeds: dict[str, int] = {}

    def occasion_of(self, method: str, path: str) -> Occasion | None:
        """Both image endpoints buy; nothing else can."""
        return "purchase" if method == "POST" and path in {_GENERATIONS, _EDITS} else None

    async def serve(self, call: Call, request: Request) -> Answer:
        """Answer with pictures, or with one of the vendor's errors."""
        started = time.monotonic()
        try:
            self._authenticate(request)
            if request.method == "GET" and request.path.startswith("/v1/models"):
                return self._models(request.path)
            if call.occasion == "purchase":
                answer = await self._buy(call, request)
            else:
                answer = wire_format.error_answer(404, None, f"Invalid URL ({request.method} {request.path})")
        except Refused as refused:
            answer = refused.answer
        return self._with_headers(answer, started)

    def _authenticate(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self.api_key}":
            raise Refused(
                401,
                "invalid_api_key",
                f"Incorrect API key provided: {self.key_prefix}…. You can find your API key at "
                "https://platform.openai.com/account/api-keys.",
            )

    def _models(self, path: str) -> Answer:
        listed = [
            {
                "id": name,
                "object": "model",
                "created": 1776729600,
                "owned_by": "system",
                "shutdown_date": None,
            }
            for name in self.models
        ]
        if path == "/v1/models":
            return json_answer({"object": "list", "data": listed})
        name = path.removeprefix("/v1/models/")
        for model in listed:
            if model["id"] == name:
                return json_answer(model)
        raise Refused(404, "model_not_found", f"The model '{name}' does not exist", param="model")

    async def _buy(self, call: Call, request: Request) -> Answer:
        given, uploads = read_body(call, request)
        self.admit(call, request, given)
        step = self.choose(call, "purchase", str(given.get("prompt", "")))
        if step.kind == "moderation_blocked" and step.argument == "output":
            order = await self._order(request.path, given, uploads)
            await self.pause(call, "purchase", step)
            if step.is_billed(usually=False):
                self._bill(call, order, order.n)
            return wire_format.moderation_blocked("output")
        refused = wire_format.refusal(step.kind, step.argument)
        if refused is not None:
            await self.pause(call, "purchase", step)
            return refused
        order = await self._order(request.path, given, uploads)
        await self.pause(call, "purchase", step)
        if step.billed:
            self._bill(call, order, order.n)
        edge = before_work(step)
        if edge is not None:
            return edge
        return deliver(await self._work(call, request.path, order, step), step)

    def admit(self, call: Call, request: Request, given: Mapping[str, Any]) -> None:
        """Look at a parsed purchase before anything else is checked; raises Refused. OpenAI lets all pass."""

    async def _order(self, path: str, given: Mapping[str, Any], uploads: Sequence[Upload]) -> Order:
        if path == _GENERATIONS:
            return wire_format.check(
                given, self.models, known=wire_format.GENERATION_PARAMETERS, default_model=None
            )
        images, mask = (
            uploaded_inputs(uploads)
            if "images" not in given and "mask" not in given
            else await linked_inputs(given)
        )
        scalars = {name: value for name, value in given.items() if name not in {"images", "mask"}}
        order = wire_format.check(
            scalars,
            self.models,
            known=wire_format.EDIT_PARAMETERS,
            default_model="gpt-image-1.5",
            input_pictures=len(images),
        )
        check_inputs(images, mask)
        return order

    async def _work(self, call: Call, path: str, order: Order, step: Step) -> Answer:
        if order.stream:
            if step.billed is None:
                self._bill(call, order, order.n, partials=order.partial_images * order.n)
            event = "image_edit" if path == _EDITS else "image_generation"
            return Answer(
                headers={"content-type": "text/event-stream"}, pieces=self._events(call, order, event)
            )
        if step.billed is None:
            self._bill(call, order, max(1, count_of(order, step)))
        pictures = await encoded(
            order, step, seed=self._seed_of(call), mark=call.attempt_id, noisy=self.noise_pictures
        )
        pieces = wire_format.reply_pieces(order, pictures, int(time.time()))
        return Answer(headers={"content-type": "application/json"}, pieces=pieces)

    def _seed_of(self, call: Call) -> int:
        if not self.idempotent or not call.attempt_id:
            return call.number
        return self._seeds.setdefault(call.attempt_id, call.number)

    def _bill(self, call: Call, order: Order, pictures: int, *, partials: int = 0) -> None:
        if self.idempotent and call.attempt_id and self._ledger.has_charged(call.attempt_id):
            return
        tokens = wire_format.usage(order, pictures=pictures, partials=partials)
        self._ledger.bill(call, pictures=pictures, cost_usd=wire_format.cost_usd(order.model, tokens))

    async def _events(self, call: Call, order: Order, event: str) -> AsyncIterator[bytes]:
        pictures = await encoded(
            order, Step(), seed=self._seed_of(call), mark=call.attempt_id, noisy=self.noise_pictures
        )
        for finished in pictures:
            shared = {
                "b64_json": finished.decode(),
                "created_at": int(time.time()),
                "size": order.size,
                "quality": order.quality,
                "background": order.background,
                "output_format": order.output_format,
            }
            for index in range(order.partial_images):
                yield _event(f"{event}.partial_image", shared | {"partial_image_index": index})
            step = self._script.choose("stream", order.prompt)
            await self.pause(call, "stream", step)
            if step.kind == "error":
                error = {
                    "message": "The server had an error.",
                    "type": "server_error",
                    "param": None,
                    "code": "server_error",
                }
                yield _event("error", {"error": error})
                return
            if step.kind == "comment":
                yield b": keepalive\n\n"
            tokens = wire_format.usage(order, pictures=1, partials=order.partial_images)
            del tokens["output_tokens_details"]
            yield _event(f"{event}.completed", shared | {"usage": tokens})
            if step.kind == "done":
                yield b"data: [DONE]\n\n"

    def _with_headers(self, answer: Answer, started: float) -> Answer:
        headers = {
            "x-request-id": f"req_{uuid.uuid4().hex}",
            "openai-organization": "org-simulated",
            "openai-processing-ms": str(int((time.monotonic() - started) * 1000)),
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-limit-input-images": "4000",
            "x-ratelimit-remaining-input-images": "3999",
            "x-ratelimit-reset-input-images": "15ms",
        }
        if answer.headers.get("content-type") == "text/html":
            headers = {}
        return Answer(
            status=answer.status,
            headers=headers | dict(answer.headers),
            pieces=answer.pieces,
            cut_at=answer.cut_at,
            reset=answer.reset,
            drip_s=answer.drip_s,
        )


def read_body(call: Call, request: Request) -> tuple[dict[str, Any], Sequence[Upload]]:
    """Read a JSON body or a form, and write it down with the call.

    Raises:
        Refused: it is neither.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.startswith("multipart/form-data"):
        try:
            form = read_form(content_type, request.body)
        except BadForm as exc:
            raise Refused(400, None, f"Could not parse multipart form: {exc}") from exc
        call.body = {**form.fields, "files": list(form.files)}
        return wire_format.form_values(form.fields), form.files
    try:
        given = json.loads(request.body)
    except ValueError as exc:
        raise Refused(400, None, "We could not parse the JSON body of your request.") from exc
    if not isinstance(given, dict):
        raise Refused(400, None, "The JSON body of your request is not an object.")
    call.body = given
    return given, ()


def count_of(order: Order, step: Step) -> int:
    """How many pictures are made for an order."""
    match step.kind:
        case "few":
            return int(step.argument or 0)
        case "many":
            return int(step.argument or order.n + 1)
        case _:
            return order.n


async def drawn(order: Order, step: Step, index: int, *, seed: int, mark: str, noisy: bool) -> bytes:
    """Make one picture of an order, spoilt as the step says; hidden in it stands `MARK/INDEX`."""
    width_px, height_px, format_ = order.width_px, order.height_px, order.output_format
    if step.kind == "wrong_size":
        width_px, height_px = (int(edge) for edge in (step.argument or "1254x1254").split("x"))
    if step.kind == "wrong_format":
        format_ = step.argument or "jpeg"
    if noisy and format_ == "png":
        return (await asyncio.to_thread(noise, width_px, height_px))[0]
    data = await asyncio.to_thread(
        picture,
        width_px,
        height_px,
        format_,
        seed=seed + index,
        mark=f"{mark}/{index}",
        transparent=order.background == "transparent",
        quality=order.output_compression,
    )
    return broken(data, step.argument or "cut") if step.kind == "broken_picture" else data


async def encoded(order: Order, step: Step, *, seed: int, mark: str, noisy: bool) -> list[bytes]:
    """Make all pictures of an order, as base64."""
    if noisy and order.output_format == "png" and step.kind != "wrong_format":
        # One string for all of them: a benchmark's pictures must not cost a copy each.
        shared = (await asyncio.to_thread(noise, order.width_px, order.height_px))[1]
        return [shared] * count_of(order, step)
    return [
        base64.b64encode(await drawn(order, step, index, seed=seed, mark=mark, noisy=noisy))
        for index in range(count_of(order, step))
    ]


def uploaded_inputs(uploads: Sequence[Upload]) -> tuple[list[bytes], bytes | None]:
    """Take the inputs of a form: `image`, `image[]`, repeated or not, and `mask`.

    Raises:
        Refused: a part has another name or declares another type than those accepted.
    """
    images, mask = [], None
    for upload in uploads:
        if upload.name not in {"image", "image[]", "mask"}:
            raise Refused(400, "unknown_parameter", f"Unknown parameter: '{upload.name}'.", param=upload.name)
        if upload.media_type not in _MEDIA_TYPES:
            raise Refused(
                400,
                "unsupported_file_mimetype",
                f"Invalid file 'image': unsupported mimetype ('{upload.media_type}'). Supported file formats are "
                "'image/jpeg', 'image/png', and 'image/webp'.",
                param="image",
            )
        if upload.name == "mask":
            mask = upload.content
        else:
            images.append(upload.content)
    return images, mask


async def linked_inputs(given: Mapping[str, Any]) -> tuple[list[bytes], bytes | None]:
    """Take the inputs of a JSON edit: each an object with exactly one of `image_url` and `file_id`.

    Raises:
        Refused: one is of another shape, or cannot be fetched.
    """
    references = given.get("images")
    if not isinstance(references, list):
        raise Refused(
            400, "missing_required_parameter", "Missing required parameter: 'images'.", param="images"
        )
    images = [await _fetched(reference, "images") for reference in references]
    mask = given.get("mask")
    return images, None if mask is None else await _fetched(mask, "mask")


async def _fetched(reference: object, param: str) -> bytes:
    if (
        not isinstance(reference, dict)
        or len(reference) != 1
        or not {"image_url", "file_id"} & set(reference)
    ):
        raise Refused(
            400,
            "invalid_value",
            f"Invalid '{param}': exactly one of image_url and file_id is expected.",
            param=param,
        )
    if "file_id" in reference:
        raise Refused(400, "invalid_value", f"No such file: '{reference['file_id']}'.", param=param)
    url = reference["image_url"]
    if not isinstance(url, str) or len(url) > _MAX_URL_CHARS:
        raise Refused(400, "invalid_value", f"Invalid '{param}': image_url is too long.", param=param)
    inline = wire_format.data_url(url)
    if inline is not None:
        return inline
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
            reply = await client.get(url)
            reply.raise_for_status()
    except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
        raise Refused(
            400, "invalid_value", "Error while downloading the image from the URL.", param=param
        ) from exc
    return reply.content


def check_inputs(images: Sequence[bytes], mask: bytes | None) -> None:
    """Check number, size and content of the inputs as far as the vendor is known to.

    Raises:
        Refused: one is wrong.
    """
    if not images:
        raise Refused(
            400, "missing_required_parameter", "Missing required parameter: 'image'.", param="image"
        )
    if len(images) > 16:
        raise Refused(400, "invalid_value", "Too many images: at most 16 are supported.", param="image")
    sizes = [_inspected(content, "image")[0] for content in images]
    if mask is None:
        return
    size, mode = _inspected(mask, "mask")
    if mode not in {"RGBA", "LA", "PA"}:
        raise Refused(400, "invalid_value", "Invalid mask: an alpha channel is required.", param="mask")
    if size != sizes[0]:
        raise Refused(
            400, "invalid_value", "Invalid mask: its size differs from the first image's.", param="mask"
        )


def _inspected(content: bytes, param: str) -> tuple[tuple[int, int], str]:
    if len(content) > _MAX_UPLOAD_BYTES:
        raise Refused(400, "invalid_value", f"Invalid file '{param}': it exceeds 50 MB.", param=param)
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
            image.load()
            return image.size, image.mode
    except (UnidentifiedImageError, OSError, SyntaxError) as exc:
        raise Refused(
            400, "invalid_value", f"Invalid file '{param}': it is no readable image.", param=param
        ) from exc


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


if __name__ == "__main__":
    parser = arguments("openai")
    parser.add_argument("--noise", action="store_true", help="serve PNGs that do not compress")
    parser.add_argument("--idempotent", action="store_true", help="honour Idempotency-Key")
    chosen = parser.parse_args()
    run(
        OpenAi(
            api_key=chosen.api_key or API_KEY,
            latency_s=chosen.latency,
            seed=chosen.seed,
            noise_pictures=chosen.noise,
            idempotent=chosen.idempotent,
        ),
        chosen,
    )
