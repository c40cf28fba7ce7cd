"""The one decision about routes: who is asked, in which order, and why each other route is left out.

The runner acts on a plan and `POST /v1/images/route` shows it, so that the explanation cannot drift from the act.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from app.catalog.entries import Model, Route, RoutingPolicy
from app.catalog.pricing import estimate, upper_bound
from app.domain.errors import GatewayError, UnsupportedParameter
from app.domain.requests import ImageRequest
from app.routing.candidates import inability, pictures_per_call
from app.routing.errors import UpstreamUnavailable

Pair: TypeAlias = tuple[str, str]
"""An upstream's name and the model's name there."""

# How soon a client may ask again when nothing says when a route comes back: long enough for an operator's change.
_RETRY_AFTER_S: Final = 30.0


class Absence(StrEnum):
    """Why a route is not among the candidates."""

    UNABLE = "unable"
    """It cannot do this request."""
    OFF = "off"
    """It will not come back by waiting: no key, disabled, no price while a budget is in force."""
    LATER = "later"
    """It comes back by itself: cooling down, tripped, full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Why a pair is not to be asked now. A pair without a standing is ready."""

    absence: Absence
    """`OFF` or `LATER`."""
    reason: str
    """A sentence for clients and operators."""
    retry_at: datetime | None = None
    """When it comes back; None when that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A route that can be asked now."""

    route: Route
    pictures: int
    """How many of the request's pictures one attempt buys at most."""
    estimate_micros: int | None
    """Micro-dollars for the whole request; None when the route is unpriced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A route that is not asked, and why."""

    route: Route
    absence: Absence
    reason: str
    param: str | None = None
    """The parameter that an unable route fails on."""
    retry_at: datetime | None = None
    """When a route that is out for now comes back, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every route of the model, each exactly once."""

    candidates: tuple[Candidate, ...]
    """In the order in which they are to be asked."""
    left_out: tuple[LeftOut, ...]
    """In the order of the catalog."""

    @property
    def retry_at(self) -> datetime | None:
        """When the first route that is out for now comes back; None when that is not known."""
        return min((left.retry_at for left in self.left_out if left.retry_at is not None), default=None)

    def refusal(self) -> GatewayError | None:
        """The error for a request that no route can serve, now or by waiting; None when it is worth accepting.

        A request that no route is able to do is the client's to change (400, naming the parameter); one whose able
        routes are all off is the operator's (502).
        """
        if self.candidates or any(left.absence is Absence.LATER for left in self.left_out):
            return None
        reasons = " ".join(left.reason for left in self.left_out)
        if any(left.absence is Absence.OFF for left in self.left_out):
            message = f"No upstream can be asked for this model. {reasons}"
            return UpstreamUnavailable(message, retry_after_s=_RETRY_AFTER_S)
        param = next((left.param for left in self.left_out if left.param is not None), None)
        return UnsupportedParameter(f"No upstream of this model can do this request. {reasons}", param=param)


def plan(
    model: Model,
    request: ImageRequest,
    *,
    standing: Mapping[Pair, Standing],
    is_budgeted: bool = False,
    can_link: bool = False,
    chance: random.Random | None = None,
    latency_s: Mapping[Pair, float] | None = None,
) -> Plan:
    """Decide which routes are asked for a valid request, in which order, and why the others are not.

    `is_budgeted` leaves out routes without a price, whose cost no budget could bound. `can_link` says that vendors
    can fetch inputs from the gateway by link; those that must are left out without it. `chance` is drawn from by
    the policy `weighted`, `latency_s` (the measured seconds of a picture) read by `fastest`.
    """
    candidates: list[Candidate] = []
    left_out: list[LeftOut] = []
    for route in model.routes:
        unable = inability(route, request, can_link=can_link)
        now = standing.get((route.upstream.name, route.model))
        if unable is not None:
            left_out.append(
                LeftOut(route=route, absence=Absence.UNABLE, reason=unable.reason, param=unable.param)
            )
        elif is_budgeted and upper_bound(route, model, request, request.n) is None:
            reason = f"The upstream '{route.upstream.name}' has no price for this request, and a budget is in force."
            left_out.append(LeftOut(route=route, absence=Absence.OFF, reason=reason))
        elif now is not None:
            left_out.append(
                LeftOut(route=route, absence=now.absence, reason=now.reason, retry_at=now.retry_at)
            )
        else:
            pictures = pictures_per_call(route, request)
            cost = estimate(route, model, request, request.n)
            candidates.append(Candidate(route=route, pictures=pictures, estimate_micros=cost))
    ordered = order(
        candidates, model.routing.policy, chance=chance or random.Random(), latency_s=latency_s or {}
    )
    return Plan(candidates=ordered, left_out=tuple(left_out))


def order(
    candidates: Sequence[Candidate],
    policy: RoutingPolicy,
    *,
    chance: random.Random,
    latency_s: Mapping[Pair, float],
) -> tuple[Candidate, ...]:
    """Put able and ready routes in the order in which they are asked; ties keep the catalog's order.

    Unpriced routes come last under `cheapest`, unmeasured ones under `fastest`.
    """
    match policy:
        case RoutingPolicy.PRIORITY:
            return tuple(candidates)
        case RoutingPolicy.CHEAPEST:
            return tuple(sorted(candidates, key=_price_key))
        case RoutingPolicy.FASTEST:
            return tuple(
                sorted(candidates, key=lambda candidate: latency_s.get(_pair(candidate), float("inf")))
            )
        case RoutingPolicy.WEIGHTED:
            # Efraimidis and Spirakis: sorting by u^(1/w) draws without replacement, in proportion to the weights.
            return tuple(sorted(candidates, key=lambda drawn: -(chance.random() ** (1 / drawn.route.weight))))


def _pair(candidate: Candidate) -> Pair:
    return candidate.route.upstream.name, candidate.route.model


def _price_key(candidate: Candidate) -> tuple[bool, int]:
    return candidate.estimate_micros is None, candidate.estimate_micros or 0
