"""What operators do with webhooks: endpoints, deliveries, and sending again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.db.connection import Connection
from app.db.engine import Database
from app.db.witness import Witness, unwitnessed
from app.domain.errors import InvalidValue
from app.kit.ids import new_id
from app.webhooks import repository
from app.webhooks.errors import (
    DeliveryNotFound,
    EndpointNotFound,
    ReceiverNotInUse,
    SigningTeamNotFound,
)
from app.webhooks.outbox import new_delivery_id
from app.webhooks.receivers import Receivers
from app.webhooks.records import Delivery, DeliveryStatus, Endpoint, EventType
from app.webhooks.schedule import SPAN_S
from app.webhooks.vault import Vault

REPLAY_AT_MOST: Final = 1000
"""Deliveries that one replay sends again, so that its transaction stays short."""
_OWED_IN_S: Final = 10.0
"""The longest that a transaction may have begun before an endpoint was switched on, and not know of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay sent again, or would."""

    since: datetime
    until: datetime
    count: int


class Webhooks:
    """Endpoints and deliveries as operators see them."""

    def __init__(self, database: Database, receivers: Receivers, vault: Vault) -> None:
        self._database = database
        self._receivers = receivers
        self._vault = vault

    async def create_endpoint(
        self,
        team_id: str,
        url: str,
        events: Sequence[EventType],
        *,
        witness: Witness[Endpoint] = unwitnessed,
    ) -> tuple[Endpoint, str | None]:
        """Tell a URL of the ends of a team's jobs from now on; with the team's secret unless somebody has seen it.

        Raises:
            ReceiverRefused: nothing may be sent to the URL, or its host has no address.
            SigningTeamNotFound: there is no such team.
        """
        await self._receivers.admit(url, param="url", must_resolve=True)
        async with self._database.transaction() as connection:
            secret = await self._vault.first_sight(connection, team_id)
            values = {"id": new_id("whe"), "team_id": team_id, "url": url, "events": list(events)}
            endpoint = await repository.insert_endpoint(connection, values, owed_in_s=_OWED_IN_S)
            await witness(connection, None, endpoint)
        return endpoint, secret

    async def list_endpoints(
        self, team_id: str | None = None, *, after: str | None = None, limit: int = 20
    ) -> tuple[Sequence[Endpoint], bool]:
        """Look at up to `limit` endpoints of a team (None: of all), newest first; and whether there are more.

        Raises:
            EndpointNotFound: `after` is no endpoint.
        """
        async with self._database.reading() as connection:
            if after is not None and await repository.find_endpoint(connection, after) is None:
                raise _no_endpoint(after, "after")
            found = await repository.list_endpoints(connection, team_id=team_id, after=after, limit=limit + 1)
        return found[:limit], len(found) > limit

    async def find_endpoint(self, endpoint_id: str) -> Endpoint:
        """Look at an endpoint.

        Raises:
            EndpointNotFound: there is none of this id, or it is deleted.
        """
        async with self._database.reading() as connection:
            return await _endpoint(connection, endpoint_id)

    async def count_pending(self, endpoint_id: str) -> int:
        """How many deliveries wait for an endpoint, and would be given up with it."""
        async with self._database.reading() as connection:
            return await repository.count_pending(connection, endpoint_id)

    async def enable_endpoint(
        self, endpoint_id: str, *, witness: Witness[Endpoint] = unwitnessed
    ) -> Endpoint:
        """Send to an endpoint again that was disabled; what it missed can be sent again by hand.

        Raises:
            EndpointNotFound: there is none of this id, or it is deleted.
            ReceiverRefused: nothing may be sent to its URL any more.
        """
        before = await self.find_endpoint(endpoint_id)
        await self._receivers.admit(before.url, param="url", must_resolve=True)
        async with self._database.transaction() as connection:
            before = await _endpoint(connection, endpoint_id, is_to_change=True)
            if not before.is_in_use:
                await repository.enable(connection, endpoint_id, owed_in_s=_OWED_IN_S)
            after = await _endpoint(connection, endpoint_id)
            await witness(connection, before, after)
        return after

    async def delete_endpoint(
        self, endpoint_id: str, *, witness: Witness[Endpoint] = unwitnessed
    ) -> tuple[Endpoint, int]:
        """Send nothing more to an endpoint, what waits for it included; the endpoint, and how much was given up.

        Raises:
            EndpointNotFound: there is none of this id, or it is deleted already.
        """
        async with self._database.transaction() as connection:
            endpoint = await _endpoint(connection, endpoint_id, is_to_change=True)
            await repository.delete_endpoint(connection, endpoint_id)
            given_up = await repository.give_up_all(connection, endpoint_id)
            await witness(connection, endpoint, None)
        return endpoint, given_up

    async def list_deliveries(
        self,
        *,
        team_id: str | None = None,
        job_id: str | None = None,
        status: DeliveryStatus | None = None,
        after: str | None = None,
        limit: int = 20,
    ) -> tuple[Sequence[Delivery], bool]:
        """Look at up to `limit` deliveries, newest first; and whether there are more.

        Raises:
            DeliveryNotFound: `after` is no delivery.
        """
        async with self._database.reading() as connection:
            if after is not None and await repository.find_delivery(connection, after) is None:
                raise _no_delivery(after, "after")
            found = await repository.list_deliveries(
                connection, team_id=team_id, job_id=job_id, status=status, after=after, limit=limit + 1
            )
        return found[:limit], len(found) > limit

    async def find_delivery(self, delivery_id: str) -> Delivery:
        """Look at a delivery.

        Raises:
            DeliveryNotFound: there is none of this id.
        """
        async with self._database.reading() as connection:
            delivery = await repository.find_delivery(connection, delivery_id)
        if delivery is None:
            raise _no_delivery(delivery_id, "id")
        return delivery

    async def resend(self, delivery_id: str, *, witness: Witness[Delivery] = unwitnessed) -> Delivery:
        """Send a delivery's event to the same receiver again, at once and with tries of its own, under the same id.

        Raises:
            DeliveryNotFound: there is none of this id.
            ReceiverNotInUse: its endpoint is disabled or deleted.
        """
        async with self._database.transaction() as connection:
            delivery = await _resendable(connection, delivery_id)
            (again_id,) = await _send_again(connection, [delivery])
            again = await repository.find_delivery(connection, again_id)
            if again is None:
                raise _no_delivery(again_id, "id")
            await witness(connection, None, again)
        return again

    async def check_resend(self, delivery_id: str) -> Delivery:
        """See whether `resend` would do: the delivery as it is.

        Raises:
            DeliveryNotFound: there is none of this id.
            ReceiverNotInUse: its endpoint is disabled or deleted.
        """
        async with self._database.reading() as connection:
            return await _resendable(connection, delivery_id)

    async def replay(
        self,
        since: datetime,
        until: datetime,
        *,
        team_id: str | None = None,
        status: DeliveryStatus | None = DeliveryStatus.FAILED,
        is_dry: bool = False,
        witness: Witness[Replayed] = unwitnessed,
    ) -> Replayed:
        """Send the events of a range of time again, to each receiver in use whose last delivery ended as `status`.

        `status` None: however it ended. `is_dry`: only count. What waits already is left as it is.

        Raises:
            InvalidValue: there are more than `REPLAY_AT_MOST`.
            SigningTeamNotFound: there is no such team.
        """
        async with self._database.transaction() as connection:
            if team_id is not None and not await repository.has_team(connection, team_id):
                raise SigningTeamNotFound(f"There is no team {team_id!r}.", param="team_id")
            found = await repository.latest_deliveries(
                connection,
                team_id=team_id,
                status=status,
                since=since,
                until=until,
                limit=REPLAY_AT_MOST + 1,
            )
            if len(found) > REPLAY_AT_MOST:
                message = (
                    f"There are more than {REPLAY_AT_MOST} deliveries in this range. Choose a shorter one."
                )
                raise InvalidValue(message, param="to")
            replayed = Replayed(since=since, until=until, count=len(found))
            if not is_dry:
                await _send_again(connection, found)
                await witness(connection, None, replayed)
        return replayed


async def _resendable(connection: Connection, delivery_id: str) -> Delivery:
    delivery = await repository.find_delivery(connection, delivery_id)
    if delivery is None:
        raise _no_delivery(delivery_id, "id")
    if delivery.endpoint_id is not None:
        endpoint = await repository.find_endpoint(connection, delivery.endpoint_id)
        if endpoint is None or not endpoint.is_in_use:
            raise ReceiverNotInUse(
                f"The endpoint {delivery.endpoint_id!r} is disabled or deleted. Enable it, or create it anew.",
                param="id",
            )
    return delivery


async def _send_again(connection: Connection, found: Sequence[Delivery]) -> list[str]:
    rows = [
        {
            "id": new_delivery_id(),
            "event_id": item.event_id,
            "team_id": item.team_id,
            "job_id": item.job_id,
            "endpoint_id": item.endpoint_id,
            "url": item.url,
            "receiver": item.receiver,
            "resent_from": item.id,
        }
        for item in found
    ]
    await repository.insert_deliveries(connection, rows, span_s=SPAN_S)
    return [str(row["id"]) for row in rows]


async def _endpoint(connection: Connection, endpoint_id: str, *, is_to_change: bool = False) -> Endpoint:
    endpoint = await repository.find_endpoint(connection, endpoint_id, is_to_change=is_to_change)
    if endpoint is None or endpoint.deleted_at is not None:
        raise _no_endpoint(endpoint_id, "id")
    return endpoint


def _no_endpoint(endpoint_id: str, param: str) -> EndpointNotFound:
    return EndpointNotFound(f"There is no webhook endpoint {endpoint_id!r}.", param=param)


def _no_delivery(delivery_id: str, param: str) -> DeliveryNotFound:
    return DeliveryNotFound(f"There is no webhook delivery {delivery_id!r}.", param=param)
