"""What a failure means for what happens next: one table with a row per kind, and nothing else decides it.

Whether money may be gone is the kind's class (`domain/failures.py`); this table adds who is asked next, what the
upstream's health takes from it, and what the client is told when there is nobody left to ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.catalog.entries import OnUnknownOutcome
from app.domain.errors import GatewayError, InvalidValue, UnsupportedParameter
from app.domain.failures import FailureKind, UpstreamFailure
from app.routing.errors import AllUpstreamsFailed, ModerationBlocked, UpstreamOutcomeUnknown


class TryAnother(StrEnum):
    """Whether another route may be asked after a failure."""

    NO = "no"
    """The request itself is at fault."""
    YES = "yes"
    """Nothing was bought."""
    ON_UNKNOWN_OUTCOME = "on_unknown_outcome"
    """It may have been bought: the model's `on_unknown_outcome` decides."""


class HealthEffect(StrEnum):
    """What a failure does to the standing of the upstream, or of its pair with the remote model."""

    NONE = "none"
    """Says nothing about the upstream."""
    PAIR_SET_ASIDE = "pair_set_aside"
    """This upstream is not asked for this remote model again for a while; its other models are unaffected."""
    OUT = "out"
    """The upstream is out until an operator or a timer lifts it: its account is at fault."""
    COOLS_DOWN = "cools_down"
    """The upstream rests for as long as it asked, or for the back-off."""
    COUNTS = "counts"
    """One more failure for the breaker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What follows from one kind of failure."""

    try_another: TryAnother
    health: HealthEffect
    alerts: bool
    """Whether a person should look at it even once."""
    client_error: type[GatewayError]
    """What the client sees if it is the last word."""


_FINAL = TryAnother.NO
_SAFE = TryAnother.YES
_AMBIGUOUS = TryAnother.ON_UNKNOWN_OUTCOME

POLICY: Final[Mapping[FailureKind, Row]] = {
    FailureKind.INVALID: Row(
        try_another=_FINAL, health=HealthEffect.NONE, alerts=False, client_error=InvalidValue
    ),
    FailureKind.REFUSED: Row(
        try_another=_FINAL, health=HealthEffect.NONE, alerts=False, client_error=ModerationBlocked
    ),
    FailureKind.UNSUPPORTED: Row(
        try_another=_SAFE, health=HealthEffect.PAIR_SET_ASIDE, alerts=False, client_error=UnsupportedParameter
    ),
    FailureKind.CREDENTIALS: Row(
        try_another=_SAFE, health=HealthEffect.OUT, alerts=True, client_error=AllUpstreamsFailed
    ),
    FailureKind.FUNDS: Row(
        try_another=_SAFE, health=HealthEffect.OUT, alerts=True, client_error=AllUpstreamsFailed
    ),
    FailureKind.BUSY: Row(
        try_another=_SAFE, health=HealthEffect.COOLS_DOWN, alerts=False, client_error=AllUpstreamsFailed
    ),
    FailureKind.DOWN: Row(
        try_another=_SAFE, health=HealthEffect.COUNTS, alerts=False, client_error=AllUpstreamsFailed
    ),
    FailureKind.TIMED_OUT: Row(
        try_another=_AMBIGUOUS, health=HealthEffect.COUNTS, alerts=False, client_error=UpstreamOutcomeUnknown
    ),
    FailureKind.GARBLED: Row(
        try_another=_AMBIGUOUS, health=HealthEffect.COUNTS, alerts=True, client_error=UpstreamOutcomeUnknown
    ),
}

# Contract 7 promises `retry-after` with these errors; where no vendor named a time, a few polls' worth is fair.
_RETRY_AFTER_S: Final = 5.0
_MOST_RETRY_AFTER_S: Final = 60.0

# Said to clients instead of the vendor's words, which may name its internals or our account.
_SENTENCES: Final[Mapping[type[GatewayError], str]] = {
    InvalidValue: "The request was found invalid by the model's vendor.",
    ModerationBlocked: "The request was rejected by the vendor's safety system.",
    UnsupportedParameter: "No configured upstream accepts this parameter for this model.",
    AllUpstreamsFailed: "Every attempt failed and none was paid for; the request can be sent again.",
    UpstreamOutcomeUnknown: "An upstream took the request but gave no clear answer, so it may have been paid for.",
}


def may_try_another(
    kind: FailureKind, on_unknown_outcome: OnUnknownOutcome, *, unknown_outcomes: int
) -> bool:
    """Whether another route may be asked after a failure of this kind.

    `unknown_outcomes` counts the job's attempts with an unknown outcome, this one included: `failover` allows
    exactly one more attempt that may be paid for. Attempts and time are limited elsewhere.
    """
    match POLICY[kind].try_another:
        case TryAnother.NO:
            return False
        case TryAnother.YES:
            return True
        case TryAnother.ON_UNKNOWN_OUTCOME:
            return on_unknown_outcome is OnUnknownOutcome.FAILOVER and unknown_outcomes <= 1


def client_error(failure: UpstreamFailure, *, job_id: str | None = None) -> GatewayError:
    """What the client is told when this failure is the last word on its job.

    A parameter that the vendor lacks is the client's to change (400); a model that it lacks is not (502).
    """
    error = POLICY[failure.kind].client_error
    if error is UnsupportedParameter and failure.param is None:
        error = AllUpstreamsFailed
    is_ours = error.status >= 500
    retry_after_s = min(failure.retry_after_s or _RETRY_AFTER_S, _MOST_RETRY_AFTER_S)
    return error(
        _SENTENCES[error],
        param=None if is_ours else failure.param,
        job_id=job_id,
        retry_after_s=retry_after_s if error.should_retry else None,
    )
