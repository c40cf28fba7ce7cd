"""Completes `/openapi.json`: which errors each operation can answer with, and the headers of every answer.

Endpoints document what is theirs; what the middleware and the shared readers add follows here from what an operation
takes, so that no endpoint can forget it.
"""

from collections.abc import Mapping
from typing import Any, Final

_MAKERS: Final = frozenset({
    "/v1/chat/completions",
    "/v1/image/{model}/edit",
    "/v1/image/{model}/generate",
    "/v1/images/edits",
    "/v1/images/generations",
})  # fmt: skip
"""Whose POST makes a job."""
_RESULTS: Final = frozenset({"/v1/jobs/{job_id}/content", "/v1/jobs/{job_id}/result"})
"""What answers with a job's own error when it has no pictures."""
_ABOUT_ONE_MODEL: Final = frozenset({"/v1/images/route", "/v1/models/{model_id}"})
"""What is answered, beside the makers, with what is known of one model."""
_IMAROUTER: Final = "/v1/image/"
_OPERATORS: Final = ("/admin/v1/", "/metrics")

_MAKING: Final = frozenset({400, 403, 404, 409, 410, 413, 422, 429, 502, 504})
_ENDED: Final = frozenset({400, 409, 410, 429, 502})
_MORE: Final[Mapping[tuple[str, str], frozenset[int]]] = {
    ("post", "/v1/images/variations"): frozenset({404}),
    ("post", "/v1/images/route"): frozenset({403, 404}),
    ("get", "/v1/jobs"): frozenset({404}),
    ("post", "/v1/jobs/{job_id}/cancel"): frozenset({409}),
    ("delete", "/v1/jobs/{job_id}"): frozenset({409}),
    ("get", "/v1/models/{model_id}"): frozenset({403}),
    ("get", "/v1/files"): frozenset({404}),
    ("get", "/v1/files/{file_id}/content"): frozenset({304, 403, 416}),
    ("post", "/admin/v1/jobs/{job_id}/cancel"): frozenset({409}),
    ("post", "/admin/v1/jobs/{job_id}/requeue"): frozenset({400, 409, 429, 502}),
    ("post", "/admin/v1/keys"): frozenset({404}),
    ("post", "/admin/v1/webhooks/deliveries/{delivery_id}/resend"): frozenset({409}),
    ("post", "/admin/v1/webhooks/deliveries/replay"): frozenset({404}),
    ("post", "/admin/v1/webhooks/endpoints"): frozenset({404}),
    ("post", "/admin/v1/webhooks/secrets/rotate"): frozenset({404}),
}
"""What follows from nothing but what the operation does."""

_SENTENCES: Final[Mapping[int, tuple[str, str, str]]] = {
    400: ("The request is invalid; `param` names what of it.", "invalid_value", "Invalid value: 'huge'."),
    401: (
        "No key, a wrong one, or an expired one: `invalid_api_key`, `key_expired`.",
        "invalid_api_key",
        "Incorrect API key provided.",
    ),
    403: (
        "This key may not: `model_not_allowed`, `admin_key_required`.",
        "model_not_allowed",
        "The model 'gpt-image-2' is not among those that this key may use.",
    ),
    404: ("There is no such thing, or it is another team's.", "not_found", "There is no such thing."),
    409: (
        "Its state does not allow it: `job_not_cancellable`.",
        "job_not_cancellable",
        "The job 'job_1' is succeeded already and cannot be cancelled.",
    ),
    410: ("`result_expired`: the pictures are gone.", "result_expired", "The pictures have been deleted."),
    413: ("`request_too_large`.", "request_too_large", "The request body is larger than 200000000 bytes."),
    416: ("The asked range lies beyond the end.", "invalid_value", "Invalid Range: the file has 12 bytes."),
    422: (
        "`idempotency_key_reused`: the key stands for another request.",
        "idempotency_key_reused",
        "The Idempotency-Key 'order-4711' was used for another request.",
    ),
    429: (
        "Too much, wrong keys too often, or a spent budget: `rate_limit_exceeded`, `queue_full`, `insufficient_quota`.",
        "rate_limit_exceeded",
        "Too many requests within a minute.",
    ),
    500: ("The gateway failed: `internal_error`.", "internal_error", "The gateway failed to serve this request."),
    502: (
        "No upstream made the pictures: `upstream_unavailable`, `all_upstreams_failed`, `upstream_outcome_unknown`.",
        "all_upstreams_failed",
        "Every upstream that can serve this request failed.",
    ),
    503: (
        "Not at the moment: `shutting_down`, or the database or the storage does not answer.",
        "shutting_down",
        "This server is restarting.",
    ),
    504: (
        "`job_still_running`: the job goes on; `job_id` says which.",
        "job_still_running",
        "The job 'job_1' is still running.",
    ),
}  # fmt: skip
"""Status -> what it means, and an example's code and message."""
_NO_RESULT: Final = (
    "`job_cancelled`: the job was cancelled, so it has no result.",
    "job_cancelled",
    "The job 'job_1' was cancelled, so it has no result.",
)
"""What 409 means where a result is wanted."""

_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"type": "string", "pattern": "^[0-9]+$"}
_FLAG: Final = {"type": "string", "enum": ["true", "false"]}
_HEADERS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "x-request-id": ("This request in the gateway's log.", _TEXT),
    "x-should-retry": ("Whether to send the same request again.", _FLAG),
    "retry-after": ("Seconds after which to ask again.", _NUMBER),
    "www-authenticate": ("`Bearer`.", _TEXT),
    "location": ("Where the job is looked at.", _TEXT),
    "preference-applied": ("`respond-async`, when a `Prefer` header asked for it.", _TEXT),
    "x-darkroom-job-id": ("The job.", _TEXT),
    "x-darkroom-upstream": ("Who made the pictures.", _TEXT),
    "x-darkroom-attempts": ("Calls to upstreams that it took.", _NUMBER),
    "x-darkroom-cost-usd": (
        "What they cost together, in US dollars; absent when a price is not known.",
        _TEXT,
    ),
    "idempotency-replayed": ("`true`: the job was there already.", _TEXT),
    "idempotency-expires": ("Until when the key stands for this job.", _TEXT),
    "deprecation": (
        "`@` and Unix seconds: since when it is announced that the model retires; absent of one that stays.",
        {"type": "string", "pattern": "^@[0-9]+$"},
    ),
    "sunset": ("When the model retires.", _TEXT),
    "x-ratelimit-limit-requests": ("Requests a minute, where there is a limit.", _NUMBER),
    "x-ratelimit-remaining-requests": ("How many of them are left.", _NUMBER),
    "x-ratelimit-reset-requests": ("Until all of them are there again, such as `1m30s`.", _TEXT),
    "x-ratelimit-limit-images": ("Pictures a minute, where there is a limit.", _NUMBER),
    "x-ratelimit-remaining-images": ("How many of them are left.", _NUMBER),
    "x-ratelimit-reset-images": ("Until all of them are there again, such as `1m30s`.", _TEXT),
}
_OF_JOBS: Final = ("x-darkroom-job-id", "idempotency-replayed", "idempotency-expires")
_OF_RESULTS: Final = ("x-darkroom-upstream", "x-darkroom-attempts", "x-darkroom-cost-usd")
_OF_ERRORS: Final = ("x-should-retry", "retry-after", "x-darkroom-job-id", "location")
_OF_MODELS: Final = ("deprecation", "sunset")
_OF_LIMITS: Final = tuple(name for name in _HEADERS if name.startswith("x-ratelimit-"))


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add to FastAPI's document, in place, what holds for whole kinds of operations; returns it."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            responses = operation["responses"]
            for vague in ("4XX", "5XX"):
                responses.pop(vague, None)
            for status in sorted(_statuses(method, path, operation)):
                responses.setdefault(str(status), _error(status, path))
            for status, response in responses.items():
                response["headers"] = {
                    name: {"description": _HEADERS[name][0], "schema": dict(_HEADERS[name][1])}
                    for name in _headers(int(status), method, path)
                } | response.get("headers", {})
            operation["responses"] = dict(sorted(responses.items()))
    return document


def _statuses(method: str, path: str, operation: Mapping[str, Any]) -> set[int]:
    """The errors that an operation can answer with; and 304, which is none."""
    if not operation.get("security"):
        return set()
    parameters = operation.get("parameters", [])
    found = {401, 429, 500, 503} | _MORE.get((method, path), frozenset())
    if path.startswith(_OPERATORS):
        # An act with anything that its endpoint does not take is refused.
        found |= {403} if method == "get" else {400, 403, 413}
    if any(item["in"] == "path" for item in parameters):
        found.add(404)
    if "requestBody" in operation:
        found |= {400, 413}
    if any(item["in"] != "path" for item in parameters):
        found.add(400)
    if any(item["name"] in {"after", "team_id", "upstream"} for item in parameters):
        found.add(404)
    if method == "post" and path in _MAKERS:
        found |= _MAKING
    if path in _RESULTS:
        found |= _ENDED
    return found


def _error(status: int, path: str) -> dict[str, Any]:
    if status == 304:
        return {"description": "The client has it already."}
    wants_result = path in _MAKERS or path in _RESULTS
    description, code, message = _NO_RESULT if status == 409 and wants_result else _SENTENCES[status]
    if path.startswith(_IMAROUTER):
        schema, example = "ImaRouterError", {"error": message, "code": code}
    else:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        example = {"error": {"message": message, "type": kind, "param": None, "code": code}}  # type: ignore[dict-item]
        schema = "ErrorAnswer"
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {
        "description": description,
        "content": {"application/json": {"schema": reference, "example": example}},
    }


def _headers(status: int, method: str, path: str) -> tuple[str, ...]:
    names: tuple[str, ...] = ("x-request-id",)
    if status >= 400 and path != "/readyz":
        names += _OF_ERRORS
    if status == 401:
        names += ("www-authenticate",)
    is_made = method == "post" and path in _MAKERS
    if is_made or path in _ABOUT_ONE_MODEL:
        names += _OF_MODELS
    if is_made and status < 300:
        names += (*_OF_JOBS, *_OF_LIMITS)
        if status == 202 or path.startswith(_IMAROUTER):
            names += ("location", "retry-after", "preference-applied")
        else:
            names += _OF_RESULTS
    if path in _RESULTS and status < 300:
        names += ("retry-after",) if status == 202 else _OF_RESULTS
    return names
