"""A local ImaRouter in both of its dialects at once: jobs in camelCase, tasks in snake_case, files on a second origin.

After upstreams.md 3; the codes and the texts of its errors are made up. By hand:
`python -m tests.simulators.imarouter --port 9104 --working 20-60`.
"""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal
from urllib.parse import unquote

from tests.simulators import openai_format as wire_format
from tests.simulators.ledger import Call
from tests.simulators.openai import PICTURE_KINDS, check_inputs, count_of, drawn, linked_inputs, read_body
from tests.simulators.openai_format import GPT_IMAGE_2, Model, Order, Refused
from tests.simulators.script import Occasion, Step
from tests.simulators.server import BREAKAGES, Simulator, arguments, before_work, deliver, json_answer, run
from tests.simulators.wire import Answer, Origin, Request

API_KEY: Final = "sk-ima-sim-0123456789abcdef"

_IMAGE: Final = "/v1/image/"
_JOBS: Final = "/v1/jobs/"
_TASKS: Final = "/v1/images/generations"

# Named sizes, after fal.ai. Those below gpt-image-2's floor of pixels are made larger at the same ratio: what the
# vendor does with them is not known.
PRESETS: Final[Mapping[str, str]] = {
    "square_hd": "1024x1024",
    "square": "1024x1024",
    "portrait_4_3": "768x1024",
    "portrait_16_9": "720x1280",
    "landscape_4_3": "1024x768",
    "landscape_16_9": "1280x720",
}

# Each is refused if it is not here, so that one that leaks out of the other dialect shows.
_JOB_FIELDS: Final = frozenset({"prompt", "imageSize", "quality", "numImages", "outputFormat", "webhookUrl"})
_EDIT_FIELDS: Final = _JOB_FIELDS | {"imageUrls", "maskUrl"}
_TASK_FIELDS: Final = frozenset({
    "model", "prompt", "size", "quality", "n", "output_format", "background", "input_fidelity", "moderation",
    "output_compression",
})  # fmt: skip
_MAX_IMAGES: Final = 4

# A medium picture was seen at 0.042; "from roughly 0.01" is published; the third is in OpenAI's proportion.
_PRICES: Final = {"low": Decimal("0.01"), "medium": Decimal("0.042"), "high": Decimal("0.168")}

# kind of step -> status, code, message
_ERRORS: Final[Mapping[str, tuple[int, str, str]]] = {
    "invalid_value": (400, "invalid_request", "invalid size"),
    "moderation_blocked": (400, "invalid_request", "content rejected"),
    "401": (401, "unauthorized", "invalid token"),
    "402": (402, "insufficient_balance", "insufficient balance"),
    "403": (403, "forbidden", "this key may not use the model"),
    "404": (404, "not_found", "no such model"),
    "409": (409, "conflict", "the request conflicts with another one"),
    "413": (413, "too_large", "the request is too large"),
    "429": (429, "rate_limited", "too many requests"),
    "500": (500, "internal", "internal error"),
    "503": (503, "unavailable", "no capacity"),
}
_JOB_KINDS: Final = frozenset({
    "failed", "failed_object", "failed_silently", "error_status", "stuck", "forgotten", "duplicate", "no_id",
    "other_status",
})  # fmt: skip
_REPLY_KINDS: Final = frozenset({"queue_full", "error_in_200"})


class Status(StrEnum):
    """The states of an order, in the words of the dialect `jobs`."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


_TASK_WORDS: Final = {
    Status.QUEUED: "queued",
    Status.RUNNING: "processing",
    Status.COMPLETED: "succeeded",
    Status.FAILED: "failed",
}


@dataclass(slots=True, kw_only=True)
class Job:
    """An accepted order, in either dialect."""

    id: str
    is_task: bool
    order: Order
    call: Call
    """The purchase; it bears the charge."""
    step: Step
    created: float
    """Unix seconds."""
    starts_at: float | None
    """On the monotonic clock; None: only when a test moves it."""
    ends_at: float | None
    status: Status = Status.QUEUED

    @property
    def pictures(self) -> int:
        """How many pictures it makes."""
        return count_of(self.order, self.step)

    @property
    def amount_usd(self) -> Decimal:
        """What it costs."""
        return _PRICES[self.order.quality] * (self.pictures or self.order.n)


class ImaRouter(Simulator):
    """ImaRouter. Beside the transport's kinds of step its script knows:

    on `purchase`: `401`, `402`, `403`, `404`, `409`, `413`, `429[:RETRY-AFTER]`, `500`, `503`, `invalid_value`,
    `moderation_blocked`, `queue_full[:STATUS]` (200 without an id), `error_in_200`; `failed[:MESSAGE]` (the error is
    a string), `failed_object[:MESSAGE]`, `failed_silently`, `error_status` (the status is `error`), `stuck`,
    `other_status[:NAME]`, `forgotten` (accepted, then 404), `duplicate` (the previous order's id), `no_id`, and
    OpenAI's `few`, `many`, `broken_picture`, `wrong_size`, `wrong_format`; on `poll`: errors and breakages; on
    `file`: `expired_link` (403, XML), `missing` (404, XML), `500`, breakages.
    """  # noqa: D415 - the list is the point

    name: ClassVar[str] = "imarouter"
    kinds: ClassVar[frozenset[str]] = (
        BREAKAGES
        | PICTURE_KINDS
        | _JOB_KINDS
        | _REPLY_KINDS
        | frozenset(_ERRORS)
        | {"expired_link", "missing"}
    )

    def __init__(
        self,
        *,
        api_key: str = API_KEY,
        models: Mapping[str, Model] | None = None,
        latency_s: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
        queued_s: float | None = 0.0,
        working_s: tuple[float, float] | None = (0.0, 0.0),
        submit_form: Literal["flat", "nested"] = "flat",
        error_shape: Literal["coded", "object", "text"] = "coded",
        shouting: bool = False,
        takes_data_urls: bool = True,
        files_port: int = 0,
    ) -> None:
        super().__init__(api_key=api_key, latency_s=latency_s, seed=seed)
        self.models = models or {"gpt-image-2": GPT_IMAGE_2}
        self.queued_s = queued_s
        """Seconds before an order begins; None: until `move`."""
        self.working_s = working_s
        """Seconds that an order works, at random between these; None: until `move`."""
        self.submit_form = submit_form
        """How a task is accepted: with everything at the top, or `{"code", "data": {"task_id"}}`."""
        self.error_shape = error_shape
        """coded: `{"code", "message", "data"}`; object: `{"error": {"message", "type"}}`; text: `{"error": "..."}`."""
        self.shouting = shouting
        """Statuses are in upper case, as the vendor's prose has them."""
        self.takes_data_urls = takes_data_urls
        self.files = Origin(_Files(self))
        self.jobs: dict[str, Job] = {}
        """By id, oldest first."""
        self._files_port = files_port
        self._signature = secrets.token_hex(8)

    async def start(self, port: int = 0) -> None:
        """Listen on both origins."""
        await self.files.start(self._files_port)
        await super().start(port)

    async def stop(self) -> None:
        """Close both origins."""
        try:
            await super().stop()
        finally:
            await self.files.stop()

    def reset(self) -> None:
        """Forget the orders too."""
        super().reset()
        self.jobs.clear()

    def move(self, job_id: str, status: Status) -> None:
        """Put an order into a state, now; into `completed` it is charged."""
        self._move(self.jobs[job_id], status)

    def expire_links(self) -> None:
        """Make every link handed out so far answer 403; the next poll hands out fresh ones."""
        self._signature = secrets.token_hex(8)

    def settle(self) -> None:
        """Charge for the orders whose time has come, polled or not."""
        for job in self.jobs.values():
            is_due = job.ends_at is not None and time.monotonic() >= job.ends_at
            if is_due and _ending(job) is Status.COMPLETED:
                self._charge(job)

    def occasion_of(self, method: str, path: str) -> Occasion | None:
        """Orders are paid POSTs; questions after one are polls."""
        if method == "POST" and (path == _TASKS or path.startswith(_IMAGE)):
            return "purchase"
        return "poll" if method == "GET" and path.startswith((_JOBS, f"{_TASKS}/")) else None

    async def serve(self, call: Call, request: Request) -> Answer:
        """Take an order, tell how one stands, or list the models."""
        try:
            if request.headers.get("authorization") != f"Bearer {self.api_key}":
                return self._error("401")
            if call.occasion == "purchase":
                return await self._purchase(call, request)
            if call.occasion == "poll":
                return await self._poll(call, request.path)
        except Refused as refused:
            said = json.loads(b"".join(refused.answer.pieces))["error"]  # type: ignore[arg-type] # a JSON answer has pieces
            return self._shaped(refused.answer.status, "invalid_request", said["message"])
        if (request.method, request.path) == ("GET", "/v1/models"):
            listed = [{"id": name, "object": "model", "owned_by": "imarouter"} for name in self.models]
            return json_answer({"object": "list", "data": listed})
        return self._shaped(404, "not_found", f"no such path: {request.method} {request.path}")

    # -- Errors.

    def _error(self, kind: str, argument: str | None = None) -> Answer:
        status, code, message = _ERRORS[kind]
        headers = {"retry-after": argument} if kind == "429" and argument is not None else {}
        return self._shaped(status, code, message, headers)

    def _shaped(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> Answer:
        bodies: dict[str, dict[str, Any]] = {
            "coded": {"code": code, "message": message, "data": None},
            "object": {"error": {"message": message, "type": code}},
            "text": {"error": message},
        }
        return json_answer(bodies[self.error_shape], status, headers)

    def _scripted_error(self, step: Step) -> Answer | None:
        if step.kind in _ERRORS:
            return self._error(step.kind, step.argument)
        match step.kind:
            case "queue_full":
                return json_answer({"message": "queue full"}, int(step.argument or 200))
            case "error_in_200":
                return json_answer({"error": {"message": "internal error", "type": "internal"}})
            case _:
                return None

    # -- Orders.

    async def _purchase(self, call: Call, request: Request) -> Answer:
        given, uploads = read_body(call, request)
        if uploads:
            raise Refused(400, None, "multipart forms are not accepted")
        step = self.choose(call, "purchase", str(given.get("prompt", "")))
        refused = self._scripted_error(step)
        if refused is not None:
            await self.pause(call, "purchase", step)
            return refused
        is_task = request.path == _TASKS
        order = await self._task(given) if is_task else await self._job(request.path, given)
        await self.pause(call, "purchase", step)
        edge = None if step.billed else before_work(step)
        if edge is not None:
            return edge
        job = self._accept(call, order, step, is_task=is_task)
        edge = before_work(step)
        if edge is not None:
            return edge
        return deliver(json_answer(self._accepted(job)), step)

    async def _job(self, path: str, given: Mapping[str, Any]) -> Order:
        name, _, action = path.removeprefix(_IMAGE).rpartition("/")
        if action not in {"generate", "edit"}:
            raise Refused(404, None, f"no such action: {action}")
        _check_names(given, _EDIT_FIELDS if action == "edit" else _JOB_FIELDS)
        pictures = given.get("numImages", 1)
        if not isinstance(pictures, int) or not 1 <= pictures <= _MAX_IMAGES:
            raise Refused(400, None, f"numImages must be between 1 and {_MAX_IMAGES}")
        if given.get("quality", "high") not in _PRICES:
            raise Refused(400, None, "quality must be low, medium or high")
        inputs = 0
        if action == "edit":
            inputs = await self._check_inputs(given.get("imageUrls"), given.get("maskUrl"))
        return self._order(
            {
                "model": unquote(name),
                "prompt": given.get("prompt"),
                "size": _size(given.get("imageSize"), is_edit=action == "edit"),
                "quality": given.get("quality", "high"),
                "n": pictures,
                "output_format": given.get("outputFormat"),
            },
            inputs,
        )

    async def _task(self, given: Mapping[str, Any]) -> Order:
        _check_names(given, _TASK_FIELDS | {"image", "images", "mask"})
        if "image" in given and "images" in given:
            raise Refused(400, None, "image and images exclude each other")
        links = [given["image"]] if "image" in given else given.get("images")
        inputs = 0
        if links is not None or "mask" in given:
            inputs = await self._check_inputs(links, given.get("mask"))
        return self._order({name: given[name] for name in _TASK_FIELDS if name in given}, inputs)

    def _order(self, values: Mapping[str, Any], inputs: int) -> Order:
        return wire_format.check(
            values, self.models, known=_TASK_FIELDS, default_model=None, input_pictures=inputs
        )

    async def _check_inputs(self, links: object, mask: object) -> int:
        addresses = links if isinstance(links, list) else []
        for address in [*addresses, *([] if mask is None else [mask])]:
            is_data = isinstance(address, str) and address.startswith("data:")
            if not isinstance(address, str) or (is_data and not self.takes_data_urls):
                raise Refused(400, None, "inputs must be http addresses")
        references: dict[str, Any] = {"images": [{"image_url": address} for address in addresses]}
        if mask is not None:
            references["mask"] = {"image_url": mask}
        images, mask_bytes = await linked_inputs(references)
        check_inputs(images, mask_bytes)
        return len(images)

    def _accept(self, call: Call, order: Order, step: Step, *, is_task: bool) -> Job:
        now = time.monotonic()
        starts_at = None if self.queued_s is None else now + self.queued_s
        ends_at = (
            None
            if starts_at is None or self.working_s is None
            else starts_at + self._random.uniform(*self.working_s)
        )
        if step.kind == "duplicate" and self.jobs:
            return next(reversed(self.jobs.values()))
        job = Job(
            id=f"{'task' if is_task else 'job'}_{secrets.token_hex(6)}",
            is_task=is_task,
            order=order,
            call=call,
            step=step,
            created=time.time(),
            starts_at=None if step.kind == "stuck" else starts_at,
            ends_at=None if step.kind == "stuck" else ends_at,
        )
        self.jobs[job.id] = job
        return job

    def _accepted(self, job: Job) -> dict[str, Any]:
        ids: dict[str, Any] = {"task_id": job.id} if job.is_task else {"id": job.id}
        if job.step.kind == "no_id":
            ids = {}
        if not job.is_task:
            return {**ids, "status": self._word(Status.QUEUED)}
        if self.submit_form == "nested":
            return {"code": "success", "data": ids}
        return {
            **({"id": job.id} if ids else {}),
            **ids,
            "object": "image",
            "model": job.order.model_name,
            "status": "queued",
            "progress": 0,
            "amount_usd": float(job.amount_usd),
            "created_at": int(job.created),
        }

    def _word(self, status: str) -> str:
        return status.upper() if self.shouting else status

    # -- Orders that were accepted.

    async def _poll(self, call: Call, path: str) -> Answer:
        is_task = not path.startswith(_JOBS)
        job = self.jobs.get(unquote(path.removeprefix(f"{_TASKS}/" if is_task else _JOBS)))
        step = self.choose(call, "poll", job.order.prompt if job else "")
        await self.pause(call, "poll", step)
        broken = self._scripted_error(step) or before_work(step)
        if broken is not None:
            return broken
        if job is None or job.is_task is not is_task or job.step.kind == "forgotten":
            return self._shaped(404, "not_found", "no such job")
        self._advance(job)
        report = self._task_report(job) if is_task else self._job_report(job)
        return deliver(json_answer(report), step)

    def _advance(self, job: Job) -> None:
        now = time.monotonic()
        if job.status is Status.QUEUED and job.starts_at is not None and now >= job.starts_at:
            self._move(job, Status.RUNNING)
        if job.status is Status.RUNNING and job.ends_at is not None and now >= job.ends_at:
            self._move(job, _ending(job))

    def _move(self, job: Job, status: Status) -> None:
        if status is Status.COMPLETED:
            self._charge(job)
        job.status = status

    def _charge(self, job: Job) -> None:
        if not job.call.charged and job.step.is_billed(usually=True):
            pictures = job.pictures or job.order.n
            self._ledger.bill(job.call, pictures=pictures, cost_usd=job.amount_usd)

    def _job_report(self, job: Job) -> dict[str, Any]:
        report: dict[str, Any] = {"id": job.id, "status": self._word(_said(job, job.status))}
        if job.status is Status.COMPLETED:
            report["output"] = [{"url": link} for link in self._links(job)]
            report["usage"] = {"cost": float(job.amount_usd)}
        if job.status is Status.FAILED:
            report |= _failure(job.step)
        return report

    def _task_report(self, job: Job) -> dict[str, Any]:
        data: dict[str, Any] = {
            "task_id": job.id,
            "status": self._word(_said(job, _TASK_WORDS[job.status])),
        }
        if job.status is Status.COMPLETED:
            links = self._links(job)
            data |= {
                "format": job.order.output_format,
                # However many pictures were made and paid for.
                "url": links[0] if links else None,
                "metadata": {},
                "usage": wire_format.usage(job.order, pictures=len(links)),
                "amount_usd": float(job.amount_usd),
            }
        if job.status is Status.FAILED:
            data |= _failure(job.step)
        return {"code": "success", "data": data}

    # -- Files.

    def _links(self, job: Job) -> list[str]:
        suffix = "jpg" if job.order.output_format == "jpeg" else job.order.output_format
        return [
            f"{self.files.url}/{job.id}/{index}.{suffix}?sig={self._signature}"
            for index in range(job.pictures)
        ]

    async def download(self, request: Request) -> Answer:
        """Answer on the files' origin."""
        call = self._ledger.record(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            occasion="file",
        )
        if "authorization" in request.headers:
            return _xml(400, "InvalidArgument", "Only one auth mechanism allowed")
        job_id, _, file = request.path.removeprefix("/").partition("/")
        job = self.jobs.get(job_id)
        step = self.choose(call, "file", job.order.prompt if job else "")
        await self.pause(call, "file", step)
        match step.kind:
            case "expired_link":
                return _xml(403, "AccessDenied", "Request has expired.")
            case "missing":
                return _xml(404, "NoSuchKey", "The specified key does not exist.")
            case "500" | "503":
                return _xml(int(step.kind), "InternalError", "Please try again.")
        broken = before_work(step)
        if broken is not None:
            return broken
        index, _, suffix = file.partition(".")
        if job is None or not index.isdecimal() or int(index) >= job.pictures:
            return _xml(404, "NoSuchKey", "The specified key does not exist.")
        if request.query.get("sig") != self._signature:
            return _xml(403, "AccessDenied", "Request has expired.")
        data = await drawn(
            job.order, job.step, int(index), seed=job.call.number, mark=job.call.attempt_id, noisy=False
        )
        media_type = "image/jpeg" if suffix == "jpg" else f"image/{suffix}"
        return deliver(Answer(headers={"content-type": media_type}, pieces=(data,)), step)


class _Files:
    """The second origin: object storage that knows signatures and no keys."""

    def __init__(self, vendor: ImaRouter) -> None:
        self._vendor = vendor

    def accepted(self) -> None:
        """Let every connection in."""

    def announced(self, request: Request) -> None:
        """Let every request in."""

    async def handle(self, request: Request) -> Answer:
        """Hand out a file."""
        return await self._vendor.download(request)


def _check_names(given: Mapping[str, Any], known: frozenset[str]) -> None:
    for name in given:
        if name not in known:
            raise Refused(400, None, f"unknown parameter: {name}")


def _size(wanted: object, *, is_edit: bool) -> str:
    match wanted:
        case None:
            return "auto" if is_edit else PRESETS["landscape_4_3"]
        case "auto" if is_edit:
            return "auto"
        case str() if wanted in PRESETS:
            return PRESETS[wanted]
        case {"width": int(width), "height": int(height)}:
            return f"{width}x{height}"
        case _:
            raise Refused(400, None, "imageSize must be a preset or a width and a height")


def _ending(job: Job) -> Status:
    has_failed = job.step.kind in {"failed", "failed_object", "failed_silently", "error_status"}
    return Status.FAILED if has_failed else Status.COMPLETED


def _said(job: Job, word: str) -> str:
    if job.step.kind == "other_status" and job.status is Status.RUNNING:
        return job.step.argument or "upscaling"
    return "error" if job.step.kind == "error_status" and job.status is Status.FAILED else word


def _failure(step: Step) -> dict[str, Any]:
    message = step.argument or "GPT Image 2 generation failed"
    match step.kind:
        case "failed_silently":
            return {}
        case "failed_object":
            return {"error": {"message": message}}
        case _:
            return {"error": message}


def _xml(status: int, code: str, message: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>\n'
    return Answer(status=status, headers={"content-type": "application/xml"}, pieces=(text.encode(),))


def _working(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)


if __name__ == "__main__":
    parser = arguments("imarouter")
    parser.add_argument("--files-port", type=int, default=0)
    parser.add_argument("--queued", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--working", type=_working, default=(0.0, 0.0), metavar="LOW-HIGH", help="seconds")
    parser.add_argument("--submit-form", choices=("flat", "nested"), default="flat", help="of a task")
    parser.add_argument("--errors", choices=("coded", "object", "text"), default="coded", help="their shape")
    parser.add_argument("--links-only", action="store_true", help="refuse inputs as data URLs")
    chosen = parser.parse_args()
    run(
        ImaRouter(
            api_key=chosen.api_key or API_KEY,
            latency_s=chosen.latency,
            seed=chosen.seed,
            queued_s=chosen.queued,
            working_s=chosen.working,
            submit_form=chosen.submit_form,
            error_shape=chosen.errors,
            takes_data_urls=not chosen.links_only,
            files_port=chosen.files_port,
        ),
        chosen,
    )
