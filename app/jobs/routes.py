"""Which upstream a job asks next: today's plan for its request, and the memory of how upstreams fared."""

import logging
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from app.catalog.entries import Model, RoutingPolicy, Upstream
from app.catalog.keys import Keyring
from app.db.engine import Database
from app.db.witness import Witness, unwitnessed
from app.domain.failures import UpstreamFailure
from app.domain.requests import ImageRequest
from app.jobs import repository, upstream_states
from app.jobs.measures import Measures
from app.kit.telemetry import get_logger
from app.kit.together import Together
from app.routing.health import (
    WHOLE,
    UpstreamState,
    expand,
    is_tripped,
    may_repeat,
    relent,
    setback,
    standings,
)
from app.routing.measures import Measure
from app.routing.plan import Absence, Pair, Plan, Standing, plan
from app.routing.policy import POLICY

LOG = get_logger(__name__)

_TOGETHER_AT_MOST: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How an upstream stands, over all processes."""

    states: tuple[UpstreamState, ...]
    """The whole upstream's, and those of its models that something is known of."""
    in_flight: int
    calls_last_minute: int
    pictures_last_minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteHealth:
    """How one route stands, and how it has fared of late."""

    standing: Standing | None
    """Why it is not asked now; None when it is."""
    measure: Measure | None
    """None: it has not been asked lately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Whom a request may ask at one moment."""

    plan: Plan
    tripped: frozenset[str]
    """The upstreams that failed repeatedly: each gets one probe at a time."""
    at: datetime
    """The moment, by the database's clock."""


class Routes:
    """Decides which upstream is asked next, from what all workers know together."""

    def __init__(
        self, database: Database, keys: Keyring, chance: random.Random, *, can_link: bool = False
    ) -> None:
        """Join the parts; `can_link` says whether vendors can fetch inputs from this gateway by its public URL."""
        self._database = database
        self._keys = keys
        self._chance = chance
        self.can_link = can_link
        self._measures = Measures(database)
        # Every job asks and tells; jobs that do so in the same moment share a query.
        self._states = Together(self._read_states, at_most=_TOGETHER_AT_MOST)
        self._successes = Together(self._record_successes, at_most=_TOGETHER_AT_MOST)

    def outline(self, model: Model, request: ImageRequest, *, is_budgeted: bool = False) -> Plan:
        """The plan as configuration alone gives it, without looking at anybody's health; no query."""
        return plan(
            model,
            request,
            standing=self._keyless(model),
            is_budgeted=is_budgeted,
            can_link=self.can_link,
            chance=self._chance,
        )

    async def plan(self, model: Model, request: ImageRequest, *, is_budgeted: bool = False) -> Outlook:
        """The plan for this moment."""
        pairs = [(route.upstream.name, route.model) for route in model.routes]
        states, at = await self._states.ask(frozenset(upstream for upstream, _ in pairs))
        measures: Mapping[Pair, Measure] = {}
        if model.routing.policy is RoutingPolicy.FASTEST:
            measures = await self._measures.of({upstream for upstream, _ in pairs})
        decide = partial(
            plan,
            model,
            request,
            is_budgeted=is_budgeted,
            can_link=self.can_link,
            chance=self._chance,
            latency_s={
                pair: found.latency_s for pair, found in measures.items() if found.latency_s is not None
            },
        )
        keyless = self._keyless(model)
        planned = decide(standing=expand(standings(states, at), pairs) | keyless)
        if not planned.candidates:
            planned = decide(standing=expand(standings(relent(states), at), pairs) | keyless)
        tripped = frozenset(state.upstream for state in states if state.model == WHOLE and is_tripped(state))
        return Outlook(plan=planned, tripped=tripped, at=at)

    async def _read_states(
        self, asked: Sequence[frozenset[str]]
    ) -> Sequence[tuple[list[UpstreamState], datetime]]:
        async with self._database.reading() as connection:
            states, at = await upstream_states.states_of(connection, frozenset().union(*asked))
        return [([state for state in states if state.upstream in names], at) for names in asked]

    async def may_ask(self, upstream: Upstream, *, is_repeat: bool, has_tripped: bool) -> bool:
        """Whether a call may go to this upstream now; `is_repeat`: it has failed this job before.

        An upstream that failed repeatedly gets one probe at a time, and retries only within their budget.
        """
        if not is_repeat and not has_tripped:
            # Nobody waits for anybody as long as all goes well.
            return True
        async with self._database.transaction() as connection:
            if is_repeat and not may_repeat(*await upstream_states.repeats(connection, upstream.name)):
                return False
            state = await upstream_states.state_of(connection, upstream.name)
            if state is None or not is_tripped(state):
                return True
            return await upstream_states.take_probe(connection, upstream.name)

    async def survey(self, models: Collection[Model]) -> Mapping[Pair, RouteHealth]:
        """How each route of these models stands and has fared, for clients; measures are at most a few seconds old."""
        pairs = [(route.upstream.name, route.model) for model in models for route in model.routes]
        names = {upstream for upstream, _ in pairs}
        async with self._database.reading() as connection:
            states, at = await upstream_states.states_of(connection, names)
        found = expand(standings(states, at), pairs)
        for model in models:
            found |= self._keyless(model)
        measures = await self._measures.of(names)
        return {pair: RouteHealth(standing=found.get(pair), measure=measures.get(pair)) for pair in pairs}

    async def failed(self, upstream: str, remote_model: str, failure: UpstreamFailure) -> None:
        """Remember a failure for all workers."""
        async with self._database.transaction() as connection:
            state = await upstream_states.state_of(connection, upstream)
            change = setback(failure, remote_model, state)
            if change is not None:
                await upstream_states.record_setback(connection, upstream, change, kind=failure.kind.value)
        if change is not None and change.away_s is not None:
            LOG.log(
                logging.ERROR if POLICY[failure.kind].alerts else logging.WARNING,
                "upstream.away",
                upstream=upstream,
                model=change.model or "all",
                reason=failure.kind.value,
                for_s=round(change.away_s, 1),
            )

    async def delivered(self, upstream: str, remote_model: str) -> None:
        """Remember a success for all workers."""
        await self._successes.ask((upstream, remote_model))

    async def _record_successes(self, pairs: Sequence[Pair]) -> Sequence[None]:
        for upstream, remote_model in sorted(set(pairs)):
            async with self._database.single() as connection:
                is_forgiven = await upstream_states.record_success(connection, upstream, remote_model)
            if is_forgiven:
                LOG.info("upstream.recovered", upstream=upstream)
        return [None] * len(pairs)

    async def health(self, upstreams: Collection[str]) -> tuple[Mapping[str, Health], datetime]:
        """How each of these upstreams stands, for operators; and the database's time of the look."""
        async with self._database.reading() as connection:
            states, at = await upstream_states.states_of(connection, upstreams)
            traffic = {name: await repository.traffic(connection, name) for name in upstreams}
        found = {}
        for name, (in_flight, calls, pictures) in traffic.items():
            found[name] = Health(
                states=tuple(item for item in states if item.upstream == name),
                in_flight=in_flight,
                calls_last_minute=calls,
                pictures_last_minute=pictures,
            )
        return found, at

    async def turn(
        self,
        upstream: str,
        models: Collection[str] | None,
        switch: str,
        *,
        witness: Witness[Sequence[UpstreamState]] = unwitnessed,
    ) -> None:
        """Turn an upstream, or some of its models, `on`, `off` or `draining`, in every process.

        Off and draining both let the calls in flight end, and send no new ones.
        """
        async with self._database.transaction() as connection:
            before = await upstream_states.rows_of(connection, upstream)
            for model in sorted([WHOLE] if models is None else models):
                await upstream_states.turn(connection, upstream, model, switch)
            await witness(connection, before, await upstream_states.rows_of(connection, upstream))

    async def reset(
        self,
        upstream: str,
        models: Collection[str] | None,
        *,
        witness: Witness[Sequence[UpstreamState]] = unwitnessed,
    ) -> None:
        """Close the breaker of an upstream, and forget its failures and absences; or those of some of its models."""
        async with self._database.transaction() as connection:
            before = await upstream_states.rows_of(connection, upstream)
            await upstream_states.forget(connection, upstream, models)
            await witness(connection, before, await upstream_states.rows_of(connection, upstream))

    def missing_key(self, upstream: Upstream) -> str | None:
        """The variable that would turn an upstream on; None when it has its key or needs none."""
        return self._keys.missing(upstream)

    def _keyless(self, model: Model) -> dict[Pair, Standing]:
        found: dict[Pair, Standing] = {}
        for route in model.routes:
            missing = self._keys.missing(route.upstream)
            if missing is not None:
                reason = f"The upstream '{route.upstream.name}' is off: set {missing} to its API key."
                found[route.upstream.name, route.model] = Standing(absence=Absence.OFF, reason=reason)
        return found
