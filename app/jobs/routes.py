"""Which upstream a job asks next: today's plan for its request, and the memory of how upstreams fared."""

import random
from datetime import datetime

from app.catalog.entries import Model, Upstream
from app.catalog.keys import Keyring
from app.db.engine import Database
from app.domain.failures import UpstreamFailure
from app.domain.requests import ImageRequest
from app.jobs import upstream_states
from app.routing.health import expand, is_tripped, setback, standings
from app.routing.plan import Absence, Pair, Plan, Standing, plan


class Routes:
    """Decides which upstream is asked next, from what all workers know together."""

    def __init__(self, database: Database, keys: Keyring, chance: random.Random) -> None:
        self._database = database
        self._keys = keys
        self._chance = chance

    def outline(self, model: Model, request: ImageRequest) -> Plan:
        """The plan as configuration alone gives it, without looking at anybody's health; no query."""
        return plan(model, request, standing=self._keyless(model), chance=self._chance)

    async def plan(self, model: Model, request: ImageRequest) -> tuple[Plan, datetime]:
        """The plan for this moment, and the database's time that it holds for."""
        pairs = [(route.upstream.name, route.model) for route in model.routes]
        async with self._database.reading() as connection:
            states, at = await upstream_states.states_of(connection, {upstream for upstream, _ in pairs})
        now = expand(standings(states, at), pairs) | self._keyless(model)
        return plan(model, request, standing=now, chance=self._chance), at

    async def may_ask(self, upstream: Upstream, *, is_last_resort: bool) -> bool:
        """Whether a call may go to this upstream now; an upstream that failed repeatedly gets one probe at a time."""
        async with self._database.transaction() as connection:
            state = await upstream_states.state_of(connection, upstream.name)
            if state is None or not is_tripped(state):
                return True
            return await upstream_states.take_probe(connection, upstream.name, is_last_resort=is_last_resort)

    async def failed(self, upstream: str, remote_model: str, failure: UpstreamFailure) -> None:
        """Remember a failure for all workers."""
        async with self._database.transaction() as connection:
            state = await upstream_states.state_of(connection, upstream)
            change = setback(failure, remote_model, state)
            if change is not None:
                await upstream_states.record_setback(connection, upstream, change, kind=failure.kind.value)

    async def delivered(self, upstream: str, remote_model: str) -> None:
        """Remember a success for all workers."""
        async with self._database.transaction() as connection:
            await upstream_states.record_success(connection, upstream, remote_model)

    def _keyless(self, model: Model) -> dict[Pair, Standing]:
        found: dict[Pair, Standing] = {}
        for route in model.routes:
            missing = self._keys.missing(route.upstream)
            if missing is not None:
                reason = f"The upstream '{route.upstream.name}' is off: set {missing} to its API key."
                found[route.upstream.name, route.model] = Standing(absence=Absence.OFF, reason=reason)
        return found
