"""XaiRouter: OpenAI's format behind a router with rules of its own.

Source: upstreams.md 4, read 2026-11-21.
"""

from typing import Final

from app.domain.failures import FailureKind
from app.upstreams.families.openai import OpenAIImages

ADAPTER: Final = OpenAIImages(
    codes={
        # The key's list of allowed models, answered with 403: the pair is of no use, the key is.
        "model_not_allowed": FailureKind.UNSUPPORTED
    }
)
