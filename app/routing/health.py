"""What a failure or a success does to an upstream's standing; pure decisions on values read from the table.

The breaker: `TRIP_AFTER` failures in a row eject an upstream for 30 s, then 60 s, and so on up to 5 minutes; after
that one call at a time probes it, and the first success closes the breaker. Source of the numbers: Envoy's defaults.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from app.domain.failures import FailureKind, UpstreamFailure
from app.kit.backoff import full_jitter
from app.routing.plan import Absence, Pair, Standing
from app.routing.policy import POLICY, HealthEffect

TRIP_AFTER: Final = 5
EJECT_S: Final = 30.0
EJECT_AT_MOST_S: Final = 300.0
OUT_S: Final = 600.0
"""How long an upstream whose account is at fault is left alone, unless an operator lifts it earlier."""
SET_ASIDE_S: Final = 600.0
"""How long a vendor that lacks a model is not asked for it."""
COOL_DOWN_AT_MOST_S: Final = 60.0
PROBE_S: Final = 10.0
"""While one call probes an upstream, the others leave it alone for so long."""
WHOLE: Final = ""
"""The model of a row that speaks of the whole upstream."""
REPEATS_SHARE: Final = 0.2
REPEATS_AT_LEAST: Final = 3
"""The retry budget: of an upstream's calls in flight, so many may be retries (Envoy's defaults)."""

_EJECTING: Final = frozenset(kind.value for kind, row in POLICY.items() if row.health is HealthEffect.COUNTS)
DISPROVED_BY_SUCCESS: Final = _EJECTING | {FailureKind.UNSUPPORTED.value}
"""Why an upstream or a pair may be away that has just delivered, so that it is not away any longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamState:
    """One row of `upstream_states`."""

    upstream: str
    model: str
    switch: str
    away_until: datetime | None
    away_for: str | None
    failures: int
    ejections: int
    updated_at: datetime | None = None
    """When something was last written here; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """What a failure changes: the row it concerns, and for how many seconds that is left alone (None: not at all)."""

    model: str
    away_s: float | None
    failures: int
    ejections: int


def setback(failure: UpstreamFailure, remote_model: str, state: UpstreamState | None) -> Setback | None:
    """What this failure changes in the standing of the upstream; `state` is its whole row. None: nothing."""
    failures = state.failures if state else 0
    ejections = state.ejections if state else 0
    match POLICY[failure.kind].health:
        case HealthEffect.NONE:
            return None
        case HealthEffect.PAIR_SET_ASIDE if failure.param in (None, "model"):
            return Setback(model=remote_model, away_s=SET_ASIDE_S, failures=0, ejections=0)
        case HealthEffect.PAIR_SET_ASIDE:
            return None  # it lacks a parameter of this request; others may do without it
        case HealthEffect.OUT:
            return Setback(model=WHOLE, away_s=OUT_S, failures=failures, ejections=ejections)
        case HealthEffect.COOLS_DOWN:
            asked_s = failure.retry_after_s or 1.0 + full_jitter(failures + 1, base_s=1.0, cap_s=20.0)
            away_s = min(asked_s, COOL_DOWN_AT_MOST_S)
            return Setback(model=WHOLE, away_s=away_s, failures=failures, ejections=ejections)
        case HealthEffect.COUNTS if failures + 1 < TRIP_AFTER:
            return Setback(model=WHOLE, away_s=None, failures=failures + 1, ejections=ejections)
        case HealthEffect.COUNTS:
            away_s = min(EJECT_S * (ejections + 1), EJECT_AT_MOST_S)
            return Setback(model=WHOLE, away_s=away_s, failures=failures + 1, ejections=ejections + 1)


def is_tripped(state: UpstreamState) -> bool:
    """Whether the breaker is open, or half-open once `away_until` has passed."""
    return state.failures >= TRIP_AFTER


def breaker(state: UpstreamState | None, at: datetime) -> str:
    """How the breaker of an upstream stands: `closed`, `open`, or `half_open` while one call at a time probes it."""
    if state is None or not is_tripped(state):
        return "closed"
    return "open" if state.away_until is not None and state.away_until > at else "half_open"


def may_repeat(active: int, repeats: int) -> bool:
    """Whether an upstream may be asked again for a job that it has failed, given its calls in flight.

    Retries must not keep a vendor down that is about to recover. Asking the next vendor is not a retry: it has not
    failed anybody yet.
    """
    return repeats < max(REPEATS_AT_LEAST, REPEATS_SHARE * active)


def relent(states: Sequence[UpstreamState]) -> list[UpstreamState]:
    """The states as they count when nobody else is left: an ejection of a last resort lasts `EJECT_S`, no longer.

    What a vendor asked for itself, and what is wrong with our account, is not shortened.
    """
    return [_relented(state) for state in states]


def _relented(state: UpstreamState) -> UpstreamState:
    is_ejected = is_tripped(state) and state.away_for in _EJECTING
    if not is_ejected or state.away_until is None or state.updated_at is None:
        return state
    return replace(state, away_until=min(state.away_until, state.updated_at + timedelta(seconds=EJECT_S)))


def standings(states: Sequence[UpstreamState], at: datetime) -> dict[Pair, Standing]:
    """Which pairs are not to be asked at this moment; the model `WHOLE` stands for all of the upstream's models."""
    found: dict[Pair, Standing] = {}
    for state in states:
        standing = _standing(state, at)
        if standing is not None:
            found[state.upstream, state.model] = standing
    return found


def _standing(state: UpstreamState, at: datetime) -> Standing | None:
    name = f"The upstream '{state.upstream}'"
    if state.switch == "off":
        return Standing(absence=Absence.OFF, reason=f"{name} was disabled by an operator.")
    if state.switch == "draining":
        return Standing(absence=Absence.OFF, reason=f"{name} is being drained by an operator.")
    if state.away_until is None or state.away_until <= at:
        return None
    if state.model != WHOLE:
        reason = f"{name} said that it lacks this model."
        return Standing(absence=Absence.OFF, reason=reason, retry_at=state.away_until)
    reason = f"{name} {_REASONS.get(state.away_for or '', 'failed several times and rests')}."
    absence = Absence.OFF if state.away_for in _ACCOUNT else Absence.LATER
    return Standing(absence=absence, reason=reason, retry_at=state.away_until)


_ACCOUNT: Final = frozenset({FailureKind.CREDENTIALS.value, FailureKind.FUNDS.value})
_REASONS: Final[Mapping[str, str]] = {
    FailureKind.BUSY.value: "asked to be left alone for a while",
    FailureKind.CREDENTIALS.value: "does not accept our key; an operator should check it",
    FailureKind.FUNDS.value: "says that our account has no money or quota left",
}


def expand(found: Mapping[Pair, Standing], pairs: Sequence[Pair]) -> dict[Pair, Standing]:
    """Spread what holds for whole upstreams over the given pairs."""
    spread: dict[Pair, Standing] = {}
    for upstream, model in pairs:
        known = [found[pair] for pair in ((upstream, WHOLE), (upstream, model)) if pair in found]
        if known:
            # What waiting does not change decides, such as an operator's word on a model of a vendor that cools down.
            spread[upstream, model] = next((item for item in known if item.absence is Absence.OFF), known[0])
    return spread


def earliest(at: datetime, plan_retry_at: datetime | None) -> float:
    """Seconds until the first route that is out for now comes back, at most `EJECT_S`; a second when none says so."""
    if plan_retry_at is None:
        return 1.0
    return min(max((plan_retry_at - at) / timedelta(seconds=1), 0.1), EJECT_S)
