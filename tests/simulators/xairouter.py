"""A local XaiRouter: OpenAI's format, its own key prefix, and a list of the models that a key may use.

Source: upstreams.md 4. By hand: `python -m tests.simulators.xairouter --port 9103`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from tests.simulators.ledger import Call
from tests.simulators.openai import OpenAi
from tests.simulators.openai_format import GPT_IMAGE_2, MODELS, Model, Refused
from tests.simulators.server import arguments, run
from tests.simulators.wire import Request

API_KEY: Final = "sk-Xvs-sim-0123456789abcdef"

# A transparent background is refused by this vendor, whatever OpenAI does by now.
_OPAQUE: Final = dataclasses.replace(GPT_IMAGE_2, transparent=False)


class XaiRouter(OpenAi):
    """XaiRouter. Its script takes the same steps as OpenAI's."""

    name: ClassVar[str] = "xairouter"
    key_prefix: ClassVar[str] = "sk-Xvs"

    def __init__(
        self,
        *,
        api_key: str = API_KEY,
        models: Mapping[str, Model] | None = None,
        latency_s: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
    ) -> None:
        allowed = models or {"gpt-image-2": _OPAQUE, "gpt-image-2-2026-04-21": _OPAQUE}
        super().__init__(api_key=api_key, models=allowed, latency_s=latency_s, seed=seed)

    def admit(self, call: Call, request: Request, given: Mapping[str, Any]) -> None:
        """Refuse a model that exists but is not on the key's list."""
        model = given.get("model")
        if model in MODELS and model not in self.models:
            raise Refused(403, "model_not_allowed", "model not allowed")


if __name__ == "__main__":
    chosen = arguments("xairouter").parse_args()
    run(
        XaiRouter(api_key=chosen.api_key or API_KEY, latency_s=chosen.latency, seed=chosen.seed),
        chosen,
    )
