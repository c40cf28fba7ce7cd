"""How errors leave: one envelope, OpenAI's, with the headers that tell a client whether to ask again.

Everything that goes wrong on the way to an answer is rendered here, whoever raised it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.rates import rate_headers
from app.api.rendering import status_of
from app.db.engine import StoreUnavailable
from app.domain.errors import GatewayError, UnknownParameter
from app.jobs.errors import JobCancelled, ResultExpired
from app.jobs.lifecycle import Status
from app.jobs.records import Job
from app.jobs.service import JobView
from app.kit.telemetry import get_logger

LOG = get_logger(__name__)

MAX_RETRY_AFTER_S: Final = 60
"""OpenAI's SDKs ignore a longer `retry-after`, and then ask again at once."""
_STORE_RETRY_AFTER_S: Final = 1.0
_IMAROUTER: Final = "/v1/image/"
_IMAROUTER_NAMES: Final = {
    "'image'": "'imageUrls'",
    "'images'": "'imageUrls'",
    "'mask'": "'maskUrl'",
    "'n'": "'numImages'",
    "'output_format'": "'outputFormat'",
    "'size'": "'imageSize'",
    "'webhook_url'": "'webhookUrl'",
}
"""What parameters are called there, as sentences quote them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error as the client sees it."""

    status: int
    code: str
    type: str
    message: str
    param: str | None = None
    job_id: str | None = None
    should_retry: bool = False
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers that belong to the status, such as `allow`."""


class RequestTooLarge(GatewayError):
    """The body has more bytes than this endpoint takes."""

    status = 413
    code = "request_too_large"


class RangeNotSatisfiable(GatewayError):
    """The asked range lies beyond the end of the file, which has `size_bytes` bytes."""

    status = 416

    def __init__(self, message: str, *, size_bytes: int) -> None:
        super().__init__(message, param="Range")
        self.size_bytes = size_bytes


class NotFound(GatewayError):
    """Nothing is at this path."""

    status = 404
    code = "not_found"


def problem_of(error: GatewayError) -> Problem:
    """What the client is told of an error of ours."""
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    headers |= rate_headers(error.rates)
    if isinstance(error, RangeNotSatisfiable):
        headers["content-range"] = f"bytes */{error.size_bytes}"
    return Problem(
        status=error.status,
        code=error.code,
        type=error.type,
        message=error.message,
        param=error.param,
        job_id=error.job_id,
        should_retry=error.should_retry,
        retry_after_s=error.retry_after_s,
        headers=headers,
    )


def problem_of_job(job: Job) -> Problem:
    """What the client is told when it asks for the result of a job that failed or expired.

    Raises:
        KeyError: the job stores no error.
    """
    error = job.error or {}
    retry_after_s = error.get("retry_after_s")
    param = error.get("param")
    return Problem(
        status=int(str(error["status"])),
        code=str(error["code"]),
        type=str(error["type"]),
        message=str(error["message"]),
        param=None if param is None else str(param),
        job_id=job.id,
        should_retry=error["should_retry"] is True,
        retry_after_s=float(retry_after_s) if isinstance(retry_after_s, int | float) else None,
    )


def problem_of_view(view: JobView) -> Problem | None:
    """What the client is told of a final job whose result cannot be handed over; None when it can."""
    job = view.job
    if status_of(job) is Status.SUCCEEDED:
        if all(view.places):
            return None
        message = f"A picture of the job {job.id!r} has been deleted, so its result cannot be given any more."
        return problem_of(ResultExpired(message, job_id=job.id))
    if job.status is Status.CANCELLED:
        message = f"The job {job.id!r} was cancelled, so it has no result."
        return problem_of(JobCancelled(message, job_id=job.id))
    if job.status is Status.SUCCEEDED:
        message = f"The pictures of the job {job.id!r} have been deleted; its record stays."
        return problem_of(ResultExpired(message, job_id=job.id))
    return problem_of_job(job)


def error_document(problem: Problem) -> dict[str, object]:
    """OpenAI's envelope."""
    body: dict[str, object] = {
        "message": problem.message,
        "type": problem.type,
        "param": problem.param,
        "code": problem.code,
    }
    if problem.job_id is not None:
        body["job_id"] = problem.job_id
    return {"error": body}


def error_response(problem: Problem, *, path: str = "") -> Response:
    """Render a problem in the envelope of the API that `path` belongs to: OpenAI's, unless it is ImaRouter's."""
    headers = {**problem.headers, "x-should-retry": "true" if problem.should_retry else "false"}
    if problem.retry_after_s is not None:
        headers["retry-after"] = str(max(1, min(math.ceil(problem.retry_after_s), MAX_RETRY_AFTER_S)))
    if problem.job_id is not None:
        headers["location"] = f"/v1/jobs/{problem.job_id}"
        headers["x-darkroom-job-id"] = problem.job_id
    if path.startswith(_IMAROUTER):
        # A name that nobody knows is the client's own, and `n` must not come back as `numImages`.
        is_quoted = problem.code == UnknownParameter.code
        message = problem.message if is_quoted else in_imarouters_words(problem.message)
        document: dict[str, object] = {"error": message, "code": problem.code}
    else:
        document = error_document(problem)
    return JSONResponse(document, status_code=problem.status, headers=headers)


def in_imarouters_words(message: str) -> str:
    """A sentence for a client that knows parameters by ImaRouter's names."""
    for ours, theirs in _IMAROUTER_NAMES.items():
        message = message.replace(ours, theirs)
    return message


class ErrorBoundary:
    """ASGI middleware that turns every exception into an answer, or breaks off an answer already begun."""

    def __init__(self, app: ASGIApp, *, public_url: str = "") -> None:
        """`public_url`: how clients reach the gateway, for errors that say where a job is looked at."""
        self._app = app
        self._public_url = public_url.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_started = False

        async def watched(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                headers = MutableHeaders(scope=message)
                # Behind a proxy with a path of its own, a path alone leads elsewhere.
                if headers.get("location", "").startswith("/"):
                    headers["location"] = f"{self._public_url}{headers['location']}"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return
        except Exception as exc:
            # The answer is incomplete and cannot be taken back: the server closes the connection.
            if is_started:
                raise
            problem = _problem_of_exception(exc, scope)
            await error_response(problem, path=scope["path"])(scope, receive, watched)


def _problem_of_exception(exc: Exception, scope: Scope) -> Problem:
    match exc:
        case GatewayError():
            return problem_of(exc)
        case StoreUnavailable():
            LOG.warning("request.store_unavailable", reason=str(exc))
            return Problem(
                status=503,
                code="internal_error",
                type="server_error",
                message="The gateway's database does not answer at the moment. Try again shortly.",
                # A job may have been committed although we were not told, and a POST without a key buys again.
                should_retry=scope["method"] in {"GET", "HEAD"},
                retry_after_s=_STORE_RETRY_AFTER_S,
            )
        case _:
            LOG.error("request.failed", exc_info=exc)
            return Problem(
                status=500,
                code="internal_error",
                type="server_error",
                message="The gateway failed to serve this request. Its log tells why, under the request's id.",
            )


def install_handlers(app: FastAPI) -> None:
    """Let the framework's own errors leave in the same envelope."""
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)


async def _framework_error(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    method, path = request.method, request.scope["path"]
    problem = Problem(
        status=status, code="invalid_value", type="invalid_request_error", message=f"HTTP {status}"
    )
    match status:
        case 404:
            message = f"There is nothing at {method} {path!r}. GET /openapi.json lists every endpoint."
            problem = Problem(status=404, code="not_found", type="invalid_request_error", message=message)
        case 405:
            allowed = ", ".join(sorted(_methods_at(request.app, path)))
            problem = Problem(
                status=405,
                code="method_not_allowed",
                type="invalid_request_error",
                message=f"{path!r} does not take {method}. It takes: {allowed}.",
                headers={"allow": allowed},
            )
        case 413:
            message = "The request body is larger than this endpoint takes."
            problem = Problem(
                status=413, code="request_too_large", type="invalid_request_error", message=message
            )
    return error_response(problem, path=path)


async def _invalid_request(_request: Request, exc: Exception) -> Response:
    errors = exc.errors() if isinstance(exc, RequestValidationError) else []
    place = [str(part) for part in errors[0]["loc"]] if errors else []
    param = place[-1] if place else None
    message = f"Invalid {param!r}: {errors[0]['msg']}." if errors else "The request is invalid."
    return error_response(
        Problem(status=400, code="invalid_value", type="invalid_request_error", message=message, param=param)
    )


def _methods_at(app: FastAPI, path: str) -> set[str]:
    """Every method that some route takes at this path; the router itself names only those of the first route."""
    found: set[str] = set()
    exactly: set[str] = set()
    for route in iter_route_contexts(app.routes):
        if route.path is not None and route.methods and compile_path(route.path)[0].match(path):
            found |= route.methods
            exactly |= route.methods if route.path == path else set()
    # A path of its own is nobody's id.
    return exactly or found
