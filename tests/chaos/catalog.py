"""The catalog of a fault run: two simulated vendors, each under two names so that the breaker of one leaves another,
and models that differ in who sells them and in what an unknown outcome allows.
"""

from collections.abc import Mapping
from typing import Any, Final

UPSTREAM_TIMEOUT_S: Final = 6
DEADLINE_S: Final = 30

MODELS: Final[Mapping[str, tuple[tuple[str, ...], int]]] = {
    "prompt-vendor": (("openai-a", "openai-b"), 1),
    "patient-vendor": (("therouter-a", "therouter-b"), 1),
    "any-vendor": (("openai-b", "therouter-b"), 1),
    "any-vendor-twice": (("therouter-a", "openai-a"), 2),
}
"""Public name -> its upstreams in order, and how many of a job's calls may be paid for."""

OPENAI_FAULTS: Final[Mapping[str, float]] = {
    "429:1": 0.03,
    "500": 0.02,
    "503": 0.01,
    "502;billed": 0.015,
    "502;free": 0.01,
    "reset:headers": 0.005,
    "reset:reply": 0.01,
    "truncated": 0.005,
    "nonsense": 0.005,
    "hang": 0.005,
    "ok;delay=8": 0.01,
    "moderation_blocked": 0.01,
}
"""What a prompt vendor does to a purchase, with its probability."""

THEROUTER_FAULTS: Final[Mapping[str, Mapping[str, float]]] = {
    "purchase": {
        "429:1": 0.03,
        "500": 0.02,
        "502;billed": 0.015,
        "502;free": 0.01,
        "reset:reply": 0.01,
        "failed": 0.02,
        "forgotten": 0.005,
        "no_id": 0.005,
    },
    "poll": {"500": 0.02, "502": 0.02, "reset:reply": 0.01, "429:1": 0.01},
    "file": {"500": 0.02, "expired_link": 0.02, "reset:reply": 0.01},
}
"""What a patient vendor does to a purchase, to a question after its order, and to a download."""

_SIZES: Final = {
    "multiple_of_px": 16,
    "max_edge_px": 3840,
    "max_ratio": 3,
    "min_pixels": 655_360,
    "max_pixels": 8_294_400,
}
# USD per million tokens; TheRouter's are 1.2 times OpenAI's.
_PRICES: Final = {
    "openai": {"text_input": 5, "image_input": 8, "image_output": 30},
    "therouter": {"text_input": 6, "image_input": 9.6, "image_output": 36},
}
_REMOTE_MODELS: Final = {"openai": "gpt-image-2", "therouter": "openai/gpt-image-2"}


def key_variable(upstream: str) -> str:
    """The environment variable that holds an upstream's key."""
    return f"CHAOS_{upstream.replace('-', '_').upper()}_KEY"


def catalog(base_urls: Mapping[str, str]) -> dict[str, Any]:
    """Write the catalog; `base_urls`: upstream -> its address, by way of its proxy."""
    return {
        "version": 1,
        "upstreams": {
            name: {
                "adapter": _vendor(name),
                "base_url": url,
                "api_key": f"env:{key_variable(name)}",
                "max_concurrency": 50,
                "timeout_s": UPSTREAM_TIMEOUT_S,
                "options": {"poll_every_s": 0.3},
            }
            for name, url in base_urls.items()
        },
        "models": {name: _model(*MODELS[name]) for name in MODELS},
    }


def _model(upstreams: tuple[str, ...], calls_that_may_be_paid: int) -> dict[str, Any]:
    return {
        "capabilities": {
            "sizes": _SIZES,
            "qualities": ["low", "medium", "high", "auto"],
            "formats": ["png", "jpeg", "webp"],
            "backgrounds": ["opaque", "auto"],
            "max_n": 10,
            "max_prompt_chars": 32_000,
        },
        "tokens": {"factors": {"low": 16, "medium": 48, "high": 96}},
        "routing": {
            "policy": "priority",
            "max_attempts": 4,
            "deadline_s": DEADLINE_S,
            "on_unknown_outcome": "fail" if calls_that_may_be_paid == 1 else "failover",
        },
        "routes": [
            {
                "upstream": upstream,
                "model": _REMOTE_MODELS[_vendor(upstream)],
                "prices": {"per_million_tokens": _PRICES[_vendor(upstream)]},
            }
            for upstream in upstreams
        ],
    }


def _vendor(upstream: str) -> str:
    return upstream.partition("-")[0]
