"""A local Vercel AI Gateway: OpenAI's format with `creator/model` names, JSON edits, options and errors of its own.

After upstreams.md 5. By hand: `python -m tests.simulators.vercel --port 9105`.
"""

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from tests.simulators import openai_format as wire_format
from tests.simulators.ledger import Call
from tests.simulators.openai import PICTURE_KINDS, check_inputs, count_of, encoded, linked_inputs, read_body
from tests.simulators.openai_format import GENERATION_PARAMETERS, MODELS, Model, Order, Refused
from tests.simulators.script import Occasion, Step
from tests.simulators.server import BREAKAGES, Simulator, arguments, before_work, deliver, json_answer, run
from tests.simulators.wire import Answer, Request

API_KEY: Final = "vck-sim-0123456789abcdef"

_GENERATIONS: Final = "/v1/images/generations"
_EDITS: Final = "/v1/images/edits"

# `response_format` is accepted here, unlike at OpenAI; what goes to the provider stands in `providerOptions`.
_PARAMETERS: Final = (GENERATION_PARAMETERS - {"moderation", "output_compression"}) | {"response_format"}
_PROVIDER_PARAMETERS: Final = {
    "moderation": "moderation",
    "outputCompression": "output_compression",
    "outputFormat": "output_format",
}

# kind of step -> status, type, message, param
_ERRORS: Final[Mapping[str, tuple[int, str, str, dict[str, Any] | None]]] = {
    "401": (401, "authentication_error", "Invalid API key.", None),
    "402": (402, "insufficient_funds", "Your credit is exhausted.", None),
    "403": (403, "forbidden", "The request was blocked by a rule.", {"ruleId": "rule_1"}),
    "404": (404, "model_not_found", "Model 'openai/nope' not found", {"modelId": "openai/nope"}),
    "424": (424, "failed_dependency", "The provider failed.", None),
    "429": (429, "rate_limit_exceeded", "Rate limit exceeded.", None),
    "500": (500, "internal_server_error", "Internal server error.", None),
    "503": (503, "internal_server_error", "Service unavailable.", None),
    "invalid_value": (400, "invalid_request_error", "Invalid size.", None),
    "credit_card": (
        403, "customer_verification_required",
        "AI Gateway requires a valid credit card on file to service requests. Please visit your billing page.", None,
    ),
    "free_tier": (403, "forbidden", "Free tier users do not have access to this model.", None),
}  # fmt: skip

# kind of step -> the provider's status and message, passed on
_PROVIDER_ERRORS: Final[Mapping[str, tuple[int, str]]] = {
    "moderation_blocked": (
        400,
        (
            "Your request was rejected by the safety system. If you believe this is an error, contact us at "
            "help.openai.com and include the request ID 1. safety_violations=[sexual]."
        ),
    ),
    "provider": (500, "The provider answered with an error."),
}


class Vercel(Simulator):
    """Vercel AI Gateway. Beside the transport's kinds of step its script knows:

    `401`, `402`, `403`, `404`, `424`, `429[:RETRY-AFTER]`, `500`, `503`, `invalid_value`, `credit_card`, `free_tier`,
    `moderation_blocked` (as its provider says it), `provider[:STATUS]` (any other error of the provider's, passed on),
    `error_in_200`, and OpenAI's `few`, `many`, `broken_picture`, `wrong_size`, `wrong_format`.
    """  # noqa: D415 - the list is the point

    name: ClassVar[str] = "vercel"
    kinds: ClassVar[frozenset[str]] = (
        BREAKAGES | PICTURE_KINDS | frozenset(_ERRORS) | frozenset(_PROVIDER_ERRORS) | {"error_in_200"}
    )

    def __init__(
        self,
        *,
        api_key: str = API_KEY,
        models: Mapping[str, Model] = MODELS,
        latency_s: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
        metadata_name: str = "providerMetadata",
        with_usage: bool = True,
    ) -> None:
        super().__init__(api_key=api_key, latency_s=latency_s, seed=seed)
        self.models = {f"openai/{name}": model for name, model in models.items()}
        self.metadata_name = metadata_name
        """Their pages spell it `providerMetadata` and `provider_metadata`."""
        self.with_usage = with_usage

    def occasion_of(self, method: str, path: str) -> Occasion | None:
        """Both image endpoints buy; nothing else can."""
        return "purchase" if method == "POST" and path in {_GENERATIONS, _EDITS} else None

    async def serve(self, call: Call, request: Request) -> Answer:
        """Answer with pictures, with one of its own errors, or with one of the provider's."""
        try:
            if request.headers.get("authorization") != f"Bearer {self.api_key}":
                return _own_error("401")
            if call.occasion == "purchase":
                return await self._buy(call, request)
        except Refused as refused:
            return _translated(refused.answer)
        if (request.method, request.path) == ("GET", "/v1/models"):
            listed = [{"id": name, "object": "model", "type": "image"} for name in self.models]
            return json_answer({"object": "list", "data": listed})
        return _error(404, "invalid_request_error", f"Not found: {request.method} {request.path}")

    async def _buy(self, call: Call, request: Request) -> Answer:
        given, uploads = read_body(call, request)
        # Whether forms are taken is not known; refusing them shows when one is sent.
        if uploads or "multipart" in request.headers.get("content-type", ""):
            return _error(400, "invalid_request_error", "Expected a JSON body.")
        step = self.choose(call, "purchase", str(given.get("prompt", "")))
        refused = _scripted(step)
        if refused is not None:
            await self.pause(call, "purchase", step)
            return refused
        order = await self._order(request.path, given)
        await self.pause(call, "purchase", step)
        if step.billed:
            self._bill(call, order, order.n)
        edge = before_work(step)
        if edge is not None:
            return edge
        if step.billed is None:
            self._bill(call, order, max(1, count_of(order, step)))
        return deliver(await self._reply(call, order, step), step)

    async def _order(self, path: str, given: Mapping[str, Any]) -> Order:
        options = given.get("providerOptions", {})
        if not isinstance(options, dict):
            raise Refused(400, None, "providerOptions must be an object.")
        provider = options.get("openai", {})
        passed_on = {
            name: provider[option] for option, name in _PROVIDER_PARAMETERS.items() if option in provider
        }
        inputs: list[bytes] = []
        if path == _EDITS:
            inputs, mask = await linked_inputs(given)
            check_inputs(inputs, mask)
        scalars = {
            name: value
            for name, value in given.items()
            if name not in {"providerOptions", "response_format", "images", "mask"}
        }
        known = _PARAMETERS | {"input_fidelity"} if path == _EDITS else _PARAMETERS
        for name in scalars:
            if name not in known:
                raise Refused(400, "unknown_parameter", f"Unknown parameter: '{name}'.", param=name)
        return wire_format.check(
            scalars | passed_on,
            self.models,
            known=known | frozenset(_PROVIDER_PARAMETERS.values()),
            default_model=None,
            input_pictures=len(inputs),
        )

    async def _reply(self, call: Call, order: Order, step: Step) -> Answer:
        pictures = await encoded(order, step, seed=call.number, mark=call.attempt_id, noisy=False)
        cost = wire_format.cost_usd(order.model, wire_format.usage(order, pictures=len(pictures)))
        rest: dict[str, Any] = {
            "created": int(time.time()),
            self.metadata_name: {
                "gateway": {"cost": format(cost, "f"), "generationId": f"gen_{secrets.token_hex(8)}"}
            },
        }
        if self.with_usage:
            usage = wire_format.usage(order, pictures=len(pictures))
            rest["usage"] = {name: usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")}
        pieces = [b'{"data": [']
        for place, picture in enumerate(pictures):
            pieces += [b', {"b64_json": "' if place else b'{"b64_json": "', picture, b'"}']
        pieces += [b"], ", json.dumps(rest).encode()[1:]]
        return Answer(headers={"content-type": "application/json"}, pieces=pieces)

    def _bill(self, call: Call, order: Order, pictures: int) -> None:
        tokens = wire_format.usage(order, pictures=pictures)
        self._ledger.bill(call, pictures=pictures, cost_usd=wire_format.cost_usd(order.model, tokens))


def _error(
    status: int,
    type_: str,
    message: str,
    *,
    param: dict[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Answer in the gateway's envelope."""
    error = {"message": message, "type": type_, "param": param, "code": type_}
    return json_answer({"error": error, "generationId": f"gen_{secrets.token_hex(8)}"}, status, headers)


def _provider_error(status: int, message: str) -> Answer:
    """Pass on what a provider answered."""
    param = {"statusCode": status, "isRetryable": status == 429 or status >= 500}
    body = {"error": {"message": message, "type": "AI_APICallError", "param": param, "code": status}}
    return json_answer(body, status)


def _own_error(kind: str, retry_after: str | None = None) -> Answer:
    status, type_, message, param = _ERRORS[kind]
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return _error(status, type_, message, param=param, headers=headers)


def _scripted(step: Step) -> Answer | None:
    if step.kind in _ERRORS:
        return _own_error(step.kind, step.argument)
    if step.kind in _PROVIDER_ERRORS:
        status, message = _PROVIDER_ERRORS[step.kind]
        return _provider_error(int(step.argument or status), message)
    if step.kind == "error_in_200":
        return _error(200, "internal_server_error", "Internal server error.")
    return None


def _translated(answer: Answer) -> Answer:
    """Say in the gateway's form what the shared checks found."""
    error = json.loads(b"".join(answer.pieces))["error"]  # type: ignore[arg-type] # a JSON answer has pieces
    if error["code"] == "model_not_found":
        return _error(404, "model_not_found", error["message"])
    return _error(answer.status, "invalid_request_error", error["message"])


if __name__ == "__main__":
    chosen = arguments("vercel").parse_args()
    run(Vercel(api_key=chosen.api_key or API_KEY, latency_s=chosen.latency, seed=chosen.seed), chosen)
