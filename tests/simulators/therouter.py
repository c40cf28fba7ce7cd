"""A local TheRouter: orders answered with a job, polled, and files on a second origin that refuses the key.

After upstreams.md 2, its 2.6 above all. By hand: `python -m tests.simulators.therouter --port 9102 --working 20-60`.
"""

import dataclasses
import secrets
import string
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal

from tests.simulators import openai_format as wire_format
from tests.simulators.forms import Upload
from tests.simulators.ledger import Call
from tests.simulators.openai import (
    PICTURE_KINDS,
    check_inputs,
    count_of,
    drawn,
    encoded,
    read_body,
    uploaded_inputs,
)
from tests.simulators.openai_format import GPT_IMAGE_1, GPT_IMAGE_2, Model, Order, Refused
from tests.simulators.script import Occasion, Step
from tests.simulators.server import BREAKAGES, Simulator, arguments, before_work, deliver, json_answer, run
from tests.simulators.wire import Answer, Origin, Request

API_KEY: Final = "tr-sim-0123456789abcdef"

_GENERATIONS: Final = "/v1/images/generations"
_EDITS: Final = "/v1/images/edits"
_JOBS: Final = "/v1/jobs/"
_WEEK_S: Final = 604_800
_ID_CHARACTERS: Final = string.ascii_letters + string.digits

# Whether others are rejected or ignored is unknown; rejecting them shows when one leaks out.
DECLARED_PARAMETERS: Final = frozenset({
    "model", "prompt", "size", "quality", "background", "output_format", "n", "user",
})  # fmt: skip

# Every price that it publishes is 1.2 times OpenAI's.
_MARKUP: Final = Decimal("1.2")


def _resold(model: Model) -> Model:
    return dataclasses.replace(
        model,
        text_usd=model.text_usd * _MARKUP,
        image_usd=model.image_usd * _MARKUP,
        out_usd=model.out_usd * _MARKUP,
    )


MODELS: Final[Mapping[str, Model]] = {
    "openai/gpt-image-2": _resold(GPT_IMAGE_2),
    "openai/gpt-image-1": _resold(GPT_IMAGE_1),
    "openai/gpt-image-1.5": _resold(wire_format.MODELS["gpt-image-1.5"]),
    "openai/gpt-image-1-mini": _resold(wire_format.MODELS["gpt-image-1-mini"]),
}


class Status(StrEnum):
    """The states of a job."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


_TERMINAL: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.EXPIRED})

_JOB_KINDS: Final = frozenset({
    "failed", "failed_text", "failed_silently", "cancelled", "expired", "stuck", "forgotten", "duplicate", "no_id",
    "other_status",
})  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Job:
    """An accepted order."""

    id: str
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
    completed: float | None = None

    @property
    def pictures(self) -> int:
        """How many pictures it makes."""
        return count_of(self.order, self.step)


class TheRouter(Simulator):
    """TheRouter. Its script knows, beside the transport's kinds of step and OpenAI's refusals:

    on `purchase`: `failed[:CODE]`, `failed_text[:MESSAGE]` (the error is a string), `failed_silently` (there is none),
    `cancelled`, `expired`, `stuck` (queued for ever), `other_status[:NAME]` (an unheard-of status before the end),
    `forgotten` (accepted, then 404), `duplicate` (the previous job's id), `no_id` (202 without one), and OpenAI's
    `few`, `many`, `broken_picture`, `wrong_size`, `wrong_format`; on `poll`: refusals and breakages; on `file`:
    `expired_link` (403, XML), `missing` (404, XML), `500`, breakages.
    """  # noqa: D415 - the list is the point

    name: ClassVar[str] = "therouter"
    kinds: ClassVar[frozenset[str]] = (
        BREAKAGES | wire_format.REFUSALS | PICTURE_KINDS | _JOB_KINDS | {"expired_link", "missing"}
    )

    def __init__(
        self,
        *,
        api_key: str = API_KEY,
        models: Mapping[str, Model] = MODELS,
        latency_s: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
        queued_s: float | None = 0.0,
        working_s: tuple[float, float] | None = (0.0, 0.0),
        result_shape: Literal["A", "B"] = "A",
        expires_at: Literal["int", "iso"] = "int",
        terse: bool = False,
        with_usage: bool = False,
        foreign_polling_url: bool = False,
        idempotent: bool = False,
        noise_pictures: bool = False,
        files_port: int = 0,
    ) -> None:
        super().__init__(api_key=api_key, latency_s=latency_s, seed=seed)
        self.models = models
        self.queued_s = queued_s
        """Seconds before a job begins; None: until `move`."""
        self.working_s = working_s
        """Seconds that a job works, at random between these; None: until `move`."""
        self.result_shape = result_shape
        """A: `unsigned_urls`; B: `result.data[].url`."""
        self.expires_at = expires_at
        self.terse = terse
        """The 202 holds only id, status and model."""
        self.with_usage = with_usage
        """A finished job reports its tokens; not documented."""
        self.foreign_polling_url = foreign_polling_url
        """`polling_url` leads to the files' origin, which must never see the key."""
        self.idempotent = idempotent
        """A repeated `Idempotency-Key` gets the same job. Not documented."""
        self.noise_pictures = noise_pictures
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
        """Forget the jobs too."""
        super().reset()
        self.jobs.clear()

    def move(self, job_id: str, status: Status) -> None:
        """Put a job into a state, now; into `succeeded` it is charged."""
        self._move(self.jobs[job_id], status)

    def expire_links(self) -> None:
        """Make every link handed out so far answer 403; the next poll hands out fresh ones."""
        self._signature = secrets.token_hex(8)

    def settle(self) -> None:
        """Charge for the jobs whose time has come, polled or not."""
        for job in self.jobs.values():
            if (
                job.ends_at is not None
                and time.monotonic() >= job.ends_at
                and _ending(job) is Status.SUCCEEDED
            ):
                self._charge(job)

    def occasion_of(self, method: str, path: str) -> Occasion | None:
        """Orders are paid POSTs; questions after a job are polls."""
        if method == "POST" and path in {_GENERATIONS, _EDITS}:
            return "purchase"
        return "poll" if method == "GET" and path.startswith(_JOBS) else None

    async def serve(self, call: Call, request: Request) -> Answer:
        """Take an order, tell how a job stands, or list the models."""
        try:
            self._authenticate(request)
            if call.occasion == "purchase":
                return await self._order(call, request)
            if call.occasion == "poll":
                return await self._poll(call, request.path.removeprefix(_JOBS))
        except Refused as refused:
            return refused.answer
        if (request.method, request.path) == ("GET", "/v1/models"):
            listed = [{"id": name, "object": "model", "owned_by": "therouter"} for name in self.models]
            return json_answer({"object": "list", "data": listed})
        return wire_format.error_answer(404, None, f"Not found: {request.method} {request.path}")

    def _authenticate(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self.api_key}":
            raise Refused(401, "invalid_api_key", "Invalid API key.")

    # -- Orders.

    async def _order(self, call: Call, request: Request) -> Answer:
        if self.idempotent and call.attempt_id:
            for job in self.jobs.values():
                if job.call.attempt_id == call.attempt_id:
                    return json_answer(self._accepted(job), 202)
        given, uploads = read_body(call, request)
        step = self.choose(call, "purchase", str(given.get("prompt", "")))
        refused = wire_format.refusal(step.kind, step.argument)
        if refused is not None:
            await self.pause(call, "purchase", step)
            return refused
        order = self._checked(request.path, given, uploads)
        await self.pause(call, "purchase", step)
        if request.query.get("async") != "true":
            return await self._at_once(call, order, step)
        edge = None if step.billed else before_work(step)
        if edge is not None:
            return edge
        job = self._accept(call, order, step)
        edge = before_work(step)
        if edge is not None:
            return edge
        accepted = self._accepted(job)
        if step.kind == "no_id":
            del accepted["id"]
        return deliver(json_answer(accepted, 202), step)

    def _checked(self, path: str, given: Mapping[str, Any], uploads: Sequence[Upload]) -> Order:
        images, mask = uploaded_inputs(uploads) if path == _EDITS else ([], None)
        order = wire_format.check(
            given, self.models, known=DECLARED_PARAMETERS, default_model=None, input_pictures=len(images)
        )
        if path == _EDITS:
            check_inputs(images, mask)
        return order

    async def _at_once(self, call: Call, order: Order, step: Step) -> Answer:
        if step.billed:
            self._bill(call, order, order.n)
        edge = before_work(step)
        if edge is not None:
            return edge
        if step.billed is None:
            self._bill(call, order, order.n)
        pictures = await encoded(
            order, step, seed=call.number, mark=call.attempt_id, noisy=self.noise_pictures
        )
        pieces = wire_format.reply_pieces(order, pictures, int(time.time()))
        return deliver(Answer(headers={"content-type": "application/json"}, pieces=pieces), step)

    def _accept(self, call: Call, order: Order, step: Step) -> Job:
        now = time.monotonic()
        starts_at = None if self.queued_s is None else now + self.queued_s
        ends_at = (
            None
            if starts_at is None or self.working_s is None
            else starts_at + self._random.uniform(*self.working_s)
        )
        if step.kind == "duplicate" and self.jobs:
            if step.billed:
                self._bill(call, order, order.n)
            return next(reversed(self.jobs.values()))
        job = Job(
            id=f"img_{''.join(secrets.choice(_ID_CHARACTERS) for _ in range(24))}",
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
        if self.terse:
            return {"id": job.id, "status": Status.QUEUED, "model": job.order.model_name}
        polling = self.files.url if self.foreign_polling_url else self.origin.url
        return self._head(job, Status.QUEUED) | {"polling_url": f"{polling}{_JOBS}{job.id}"}

    def _head(self, job: Job, status: str) -> dict[str, Any]:
        expires = int(job.created) + _WEEK_S
        return {
            "id": job.id,
            "object": "image_job",
            "status": status,
            "model": job.order.model_name,
            "created_at": int(job.created),
            "expires_at": expires
            if self.expires_at == "int"
            else datetime.fromtimestamp(expires, UTC).isoformat(),
        }

    # -- Jobs.

    async def _poll(self, call: Call, path: str) -> Answer:
        job_id, _, rest = path.partition("/")
        job = self.jobs.get(job_id)
        step = self.choose(call, "poll", job.order.prompt if job else "")
        await self.pause(call, "poll", step)
        broken = wire_format.refusal(step.kind, step.argument) or before_work(step)
        if broken is not None:
            return broken
        if job is None or job.step.kind == "forgotten":
            raise Refused(404, "job_not_found", "No such job.")
        self._advance(job)
        if rest == "content" and job.status is Status.SUCCEEDED and job.pictures:
            return Answer(status=302, headers={"location": self._links(job)[0]})
        if rest:
            raise Refused(404, None, "Not found.")
        return deliver(json_answer(self._report(job)), step)

    def _advance(self, job: Job) -> None:
        now = time.monotonic()
        if job.status is Status.QUEUED and job.starts_at is not None and now >= job.starts_at:
            self._move(job, Status.IN_PROGRESS)
        if job.status is Status.IN_PROGRESS and job.ends_at is not None and now >= job.ends_at:
            self._move(job, _ending(job))

    def _move(self, job: Job, status: Status) -> None:
        if status is Status.SUCCEEDED:
            self._charge(job)
        if status in _TERMINAL:
            job.completed = time.time()
        job.status = status

    def _charge(self, job: Job) -> None:
        if not job.call.charged and job.step.is_billed(usually=True):
            self._bill(job.call, job.order, job.pictures or job.order.n)

    def _bill(self, call: Call, order: Order, pictures: int) -> None:
        tokens = wire_format.usage(order, pictures=pictures)
        self._ledger.bill(call, pictures=pictures, cost_usd=wire_format.cost_usd(order.model, tokens))

    def _report(self, job: Job) -> dict[str, Any]:
        running = job.status is Status.IN_PROGRESS
        status = (
            (job.step.argument or "rendering") if running and job.step.kind == "other_status" else job.status
        )
        report = self._head(job, status)
        match job.status:
            case Status.SUCCEEDED:
                links = self._links(job)
                report["completed_at"] = int(job.completed or job.created)
                if self.result_shape == "A":
                    report["unsigned_urls"] = links
                else:
                    report["result"] = {"data": [{"url": link} for link in links]}
                if self.with_usage:
                    report["usage"] = wire_format.usage(job.order, pictures=len(links))
            case Status.FAILED:
                report |= _failure(job.step)
            case _:
                pass
        return report

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
                return _xml(403, "AccessDenied", "Request has expired")
            case "missing":
                return _xml(404, "NoSuchKey", "The specified key does not exist.")
            case "500" | "503":
                return _xml(int(step.kind), "InternalError", "We encountered an internal error.")
        broken = before_work(step)
        if broken is not None:
            return broken
        index, _, suffix = file.partition(".")
        if job is None or not index.isdecimal() or int(index) >= job.pictures:
            return _xml(404, "NoSuchKey", "The specified key does not exist.")
        if request.query.get("sig") != self._signature:
            return _xml(403, "AccessDenied", "Request has expired")
        data = await drawn(
            job.order,
            job.step,
            int(index),
            seed=job.call.number,
            mark=job.call.attempt_id,
            noisy=self.noise_pictures,
        )
        media_type = "image/jpeg" if suffix == "jpg" else f"image/{suffix}"
        return deliver(Answer(headers={"content-type": media_type}, pieces=(data,)), step)


class _Files:
    """The second origin: object storage that knows signatures and no keys."""

    def __init__(self, vendor: TheRouter) -> None:
        self._vendor = vendor

    def accepted(self) -> None:
        """Let every connection in."""

    def announced(self, request: Request) -> None:
        """Let every request in."""

    async def handle(self, request: Request) -> Answer:
        """Hand out a file."""
        return await self._vendor.download(request)


def _ending(job: Job) -> Status:
    match job.step.kind:
        case "failed" | "failed_text" | "failed_silently":
            return Status.FAILED
        case "cancelled":
            return Status.CANCELLED
        case "expired":
            return Status.EXPIRED
        case _:
            return Status.SUCCEEDED


def _failure(step: Step) -> dict[str, Any]:
    match step.kind:
        case "failed_text":
            return {"error": step.argument or "Provider rejected the prompt"}
        case "failed_silently":
            return {}
    if step.argument == "moderation_blocked":
        return {
            "error": {
                "code": "moderation_blocked",
                "message": "Your request was rejected by the safety system.",
                "type": "image_generation_user_error",
            }
        }
    code = step.argument or "upstream_error"
    return {"error": {"code": code, "message": "The job failed.", "type": "server_error"}}


def _xml(status: int, code: str, message: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status=status, headers={"content-type": "application/xml"}, pieces=(text.encode(),))


def _working(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)


if __name__ == "__main__":
    parser = arguments("therouter")
    parser.add_argument("--files-port", type=int, default=0)
    parser.add_argument("--queued", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--working", type=_working, default=(0.0, 0.0), metavar="LOW-HIGH", help="seconds")
    parser.add_argument("--shape", choices=("A", "B"), default="A", help="of a finished job")
    parser.add_argument("--usage", action="store_true", help="finished jobs report their tokens")
    parser.add_argument("--idempotent", action="store_true", help="honour Idempotency-Key")
    parser.add_argument("--noise", action="store_true", help="serve PNGs that do not compress")
    chosen = parser.parse_args()
    run(
        TheRouter(
            api_key=chosen.api_key or API_KEY,
            latency_s=chosen.latency,
            seed=chosen.seed,
            queued_s=chosen.queued,
            working_s=chosen.working,
            result_shape=chosen.shape,
            with_usage=chosen.usage,
            idempotent=chosen.idempotent,
            noise_pictures=chosen.noise,
            files_port=chosen.files_port,
        ),
        chosen,
    )
