"""Every way of speaking to a vendor, and what each fault that a vendor can have must come to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from app.catalog.entries import Route, Upstream
from app.domain.failures import FailureKind
from app.kit.json import Json
from tests.catalog.shipped import a_route
from tests.simulators import imarouter, therouter
from tests.simulators.imarouter import ImaRouter
from tests.simulators.openai import OpenAi
from tests.simulators.server import Simulator
from tests.simulators.therouter import TheRouter
from tests.simulators.vercel import Vercel
from tests.simulators.xairouter import XaiRouter

KEY: Final = "sk-canary-3f9a1c"
"""Every vendor's key here; it may stand in no log and in no message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """One adapter with one set of options, before its simulator."""

    name: str
    vendor: str
    """The adapter, the upstream in the shipped catalog, and the simulator: all have the vendor's name."""
    simulator: Callable[[], Simulator]
    options: Mapping[str, Json] = field(default_factory=dict)
    max_n: int | None = None
    """Pictures that one call makes, where the shipped route is about another dialect."""
    is_polled: bool = False

    def route(self, base_url: str) -> Route:
        """The shipped route of gpt-image-2, led to the simulator."""
        shipped = a_route(self.vendor)
        upstream: Upstream = replace(
            shipped.upstream, base_url=base_url, options={**shipped.upstream.options, **self.options}
        )
        supports = shipped.supports if self.max_n is None else replace(shipped.supports, max_n=self.max_n)
        return replace(shipped, upstream=upstream, supports=supports)


SPEECHES: Final = (
    Speech(name="openai", vendor="openai", simulator=lambda: OpenAi(api_key=KEY)),
    Speech(name="xairouter", vendor="xairouter", simulator=lambda: XaiRouter(api_key=KEY)),
    Speech(name="vercel", vendor="vercel", simulator=lambda: Vercel(api_key=KEY)),
    Speech(name="therouter", vendor="therouter", simulator=lambda: TheRouter(api_key=KEY), is_polled=True),
    Speech(
        name="imarouter-jobs",
        vendor="imarouter",
        simulator=lambda: ImaRouter(api_key=KEY),
        options={"dialect": "jobs"},
        is_polled=True,
    ),
    Speech(
        name="imarouter-tasks",
        vendor="imarouter",
        simulator=lambda: ImaRouter(api_key=KEY),
        options={"dialect": "tasks"},
        max_n=1,
        is_polled=True,
    ),
    Speech(
        name="imarouter-tasks-nested",
        vendor="imarouter",
        simulator=lambda: ImaRouter(api_key=KEY, submit_form="nested", error_shape="object", shouting=True),
        options={"dialect": "tasks"},
        max_n=1,
        is_polled=True,
    ),
)

POLLED: Final = tuple(speech for speech in SPEECHES if speech.is_polled)


def unfinished(speech: Speech) -> tuple[TheRouter | ImaRouter, str, str]:
    """A polled vendor whose orders move only when told, and its words for an order in work and for one done."""
    if speech.vendor == "therouter":
        words = therouter.Status
        return TheRouter(api_key=KEY, queued_s=None), words.IN_PROGRESS, words.SUCCEEDED
    states = imarouter.Status
    return ImaRouter(api_key=KEY, queued_s=None), states.RUNNING, states.COMPLETED


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A row of the matrix: what is scripted at a purchase of one picture, and what must come of it."""

    step: str
    kind: FailureKind
    bought: int = 0
    """Pictures that the vendor makes and bills."""
    calls: int = 1
    """Paid POSTs that the vendor receives."""
    timeout_s: float = 30.0
    at: frozenset[str] | None = None
    """The vendors that can have it; None: all."""


def _at(*vendors: str) -> frozenset[str]:
    return frozenset(vendors)


_OPENAI_FORMAT: Final = _at("openai", "xairouter", "therouter")
_POLLED: Final = _at("therouter", "imarouter")

# Long enough for a request to be made and billed on a busy machine; the faults below wait it out.
_SOON_S: Final = 1.5

FAULTS: Final = (
    # In the vendor's own form: nothing was bought.
    Fault(step="invalid_value", kind=FailureKind.INVALID),
    Fault(step="moderation_blocked", kind=FailureKind.REFUSED),
    Fault(step="404", kind=FailureKind.UNSUPPORTED),
    Fault(step="401", kind=FailureKind.CREDENTIALS),
    Fault(step="403", kind=FailureKind.CREDENTIALS),
    Fault(step="402", kind=FailureKind.FUNDS),
    Fault(step="429:7", kind=FailureKind.BUSY),
    Fault(step="500", kind=FailureKind.DOWN),
    Fault(step="503", kind=FailureKind.DOWN),
    Fault(step="error_in_200", kind=FailureKind.DOWN),
    # From an edge before the vendor: an answer, but none that settles anything.
    Fault(step="502", kind=FailureKind.GARBLED),
    Fault(step="502;billed", kind=FailureKind.GARBLED, bought=1),
    Fault(step="504;billed", kind=FailureKind.GARBLED, bought=1),
    Fault(step="524;billed", kind=FailureKind.GARBLED, bought=1),
    Fault(step="408", kind=FailureKind.GARBLED),
    Fault(step="html:500", kind=FailureKind.GARBLED),
    Fault(step="html:403", kind=FailureKind.GARBLED),
    Fault(step="redirect", kind=FailureKind.GARBLED),
    # The connection breaks.
    Fault(step="reset:accept", kind=FailureKind.TIMED_OUT, calls=0),
    Fault(step="reset:headers", kind=FailureKind.TIMED_OUT),
    Fault(step="reset:body", kind=FailureKind.TIMED_OUT),
    Fault(step="reset:body;billed", kind=FailureKind.TIMED_OUT, bought=1),
    Fault(step="reset:reply", kind=FailureKind.TIMED_OUT, bought=1),
    Fault(step="cut", kind=FailureKind.TIMED_OUT, bought=1),
    # The answer does not come, or not in time.
    Fault(step="hang", kind=FailureKind.TIMED_OUT, timeout_s=_SOON_S),
    Fault(step="drip:0.1", kind=FailureKind.TIMED_OUT, bought=1, timeout_s=_SOON_S),
    # The answer makes no sense.
    Fault(step="nonsense", kind=FailureKind.GARBLED, bought=1),
    Fault(step="nonsense:[]", kind=FailureKind.GARBLED, bought=1),
    Fault(step='nonsense:{"data": [{"b64_json": 7}, null]}', kind=FailureKind.GARBLED, bought=1),
    Fault(step="truncated", kind=FailureKind.GARBLED, bought=1),
    Fault(step="not_json", kind=FailureKind.GARBLED, bought=1),
    Fault(step="wrong_type", kind=FailureKind.GARBLED, bought=1),
    Fault(step="empty", kind=FailureKind.GARBLED, bought=1),
    Fault(step="huge:65", kind=FailureKind.GARBLED, bought=1),
    # What only some vendors say.
    Fault(step="insufficient_quota", kind=FailureKind.FUNDS, at=_OPENAI_FORMAT),
    Fault(step="billing_hard_limit_reached", kind=FailureKind.FUNDS, at=_OPENAI_FORMAT),
    Fault(step="content_policy_violation", kind=FailureKind.REFUSED, at=_OPENAI_FORMAT),
    Fault(step="unknown_parameter", kind=FailureKind.UNSUPPORTED, at=_OPENAI_FORMAT),
    Fault(step="slow_down", kind=FailureKind.BUSY, at=_OPENAI_FORMAT),
    Fault(step="unsupported_country", kind=FailureKind.CREDENTIALS, at=_OPENAI_FORMAT),
    Fault(step="409", kind=FailureKind.DOWN, at=_OPENAI_FORMAT | _at("imarouter")),
    Fault(step="413", kind=FailureKind.INVALID, at=_at("imarouter")),
    Fault(step="queue_full", kind=FailureKind.BUSY, at=_at("imarouter")),
    Fault(step="queue_full:503", kind=FailureKind.BUSY, at=_at("imarouter")),
    Fault(step="credit_card", kind=FailureKind.FUNDS, at=_at("vercel")),
    Fault(step="free_tier", kind=FailureKind.CREDENTIALS, at=_at("vercel")),
    Fault(step="424", kind=FailureKind.DOWN, at=_at("vercel")),
    Fault(step="provider:401", kind=FailureKind.DOWN, at=_at("vercel")),
    Fault(step="provider:429", kind=FailureKind.BUSY, at=_at("vercel")),
    Fault(step="provider:500", kind=FailureKind.DOWN, at=_at("vercel")),
    # Orders that were accepted, and ended without pictures.
    Fault(step="failed", kind=FailureKind.DOWN, at=_POLLED),
    Fault(step="failed_silently", kind=FailureKind.DOWN, at=_POLLED),
    Fault(step="failed:moderation_blocked", kind=FailureKind.REFUSED, at=_at("therouter")),
    Fault(step="failed:invalid_value", kind=FailureKind.INVALID, at=_at("therouter")),
    Fault(step="failed_text", kind=FailureKind.DOWN, at=_at("therouter")),
    Fault(step="cancelled", kind=FailureKind.DOWN, at=_at("therouter")),
    Fault(step="expired", kind=FailureKind.DOWN, at=_at("therouter")),
    Fault(step="failed:content rejected", kind=FailureKind.REFUSED, at=_at("imarouter")),
    Fault(step="failed_object:content rejected", kind=FailureKind.REFUSED, at=_at("imarouter")),
    Fault(step="failed_object", kind=FailureKind.DOWN, at=_at("imarouter")),
    Fault(step="error_status", kind=FailureKind.DOWN, at=_at("imarouter")),
    # Orders that the vendor took, and that we can no longer ask after.
    Fault(step="no_id", kind=FailureKind.GARBLED, bought=1, at=_POLLED),
    Fault(step="forgotten", kind=FailureKind.GARBLED, bought=1, at=_POLLED),
    Fault(step="few:0", kind=FailureKind.GARBLED, bought=1),
)
