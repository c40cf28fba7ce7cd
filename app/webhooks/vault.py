"""The secrets that deliveries are signed with: one per team, sealed at rest, the previous one beside it for a while."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.db.connection import Connection
from app.db.engine import Database
from app.db.tables.webhook_secrets import webhook_secrets
from app.db.witness import Witness, unwitnessed
from app.kit.ids import new_id
from app.kit.sealing import Sealer, place_of
from app.webhooks import repository, signing
from app.webhooks.errors import SigningTeamNotFound
from app.webhooks.records import StoredSecret

OVERLAP_S: Final = 86400.0
"""How long a rotated secret signs beside the new one: long enough to roll a change out on a working day."""
_BATCH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A team's new secret, by its id; the text is nowhere in it."""

    team_id: str
    secret_id: str
    previous_ends_at: datetime | None
    """None when the team had no secret before."""


class Vault:
    """Keeps the teams' secrets."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def signing_secrets(self, team_id: str) -> list[bytes]:
        """The secrets to sign with now, the current one first; made when the team has none yet.

        Nobody has seen a secret that is made here: it is shown with the team's next endpoint, or rotated.

        Raises:
            SealBroken: a secret was sealed under one that this process does not have.
        """
        async with self._database.reading() as connection:
            stored = await repository.live_secrets(connection, team_id)
        if not stored:
            async with self._database.transaction() as connection:
                await _hold(connection, team_id)
                if not await repository.live_secrets(connection, team_id):
                    await self._insert(connection, team_id, signing.make_secret())
                stored = await repository.live_secrets(connection, team_id)
        return [self._sealer.open(item.sealed, _place(item.id)) for item in stored]

    async def first_sight(self, connection: Connection, team_id: str) -> str | None:
        """Show a team's secret in the transaction of `connection`, made now if there is none; None when it was shown.

        Raises:
            SigningTeamNotFound: there is no such team.
            SealBroken: it was sealed under a secret that this process does not have.
        """
        await _hold(connection, team_id)
        stored = await repository.live_secrets(connection, team_id)
        if not stored:
            secret = signing.make_secret()
            await repository.mark_shown(connection, await self._insert(connection, team_id, secret))
            return signing.text_of(secret)
        current = stored[0]
        if current.shown_at is not None:
            return None
        await repository.mark_shown(connection, current.id)
        return signing.text_of(self._sealer.open(current.sealed, _place(current.id)))

    async def rotate(
        self, team_id: str, *, overlap_s: float = OVERLAP_S, witness: Witness[Rotation] = unwitnessed
    ) -> tuple[Rotation, str]:
        """Put a new secret in the place of the current one, which signs beside it for `overlap_s`; with its text.

        The text is shown this once. A secret that was rotated before ends at once.

        Raises:
            SigningTeamNotFound: there is no such team.
        """
        secret = signing.make_secret()
        async with self._database.transaction() as connection:
            await _hold(connection, team_id)
            ends_at = await repository.retire_secrets(connection, team_id, overlap_s=overlap_s)
            secret_id = await self._insert(connection, team_id, secret)
            await repository.mark_shown(connection, secret_id)
            rotation = Rotation(team_id=team_id, secret_id=secret_id, previous_ends_at=ends_at)
            await witness(connection, None, rotation)
        return rotation, signing.text_of(secret)

    async def check_rotation(self, team_id: str, *, overlap_s: float) -> datetime | None:
        """When the current secret would end if it were rotated now; None when the team has none.

        Raises:
            SigningTeamNotFound: there is no such team.
        """
        async with self._database.reading() as connection:
            if not await repository.has_team(connection, team_id):
                raise _no_team(team_id)
            if not await repository.live_secrets(connection, team_id):
                return None
            return await repository.moment_in(connection, overlap_s)

    async def reseal(self) -> tuple[int, int]:
        """Seal every secret under the newest of the process's: how many were, and how many there are.

        Raises:
            SealBroken: a secret was sealed under one that this process does not have; those before it are done.
        """
        changed, seen, last = 0, 0, ""
        while True:
            async with self._database.transaction() as connection:
                batch = await repository.secrets_after(connection, last, limit=_BATCH)
                for item in batch:
                    changed += await self._reseal(connection, item)
            seen += len(batch)
            if len(batch) < _BATCH:
                return changed, seen
            last = batch[-1].id

    async def count_lost(self) -> int:
        """How many secrets that sign now were sealed under one that this process does not have.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """
        async with self._database.reading() as connection:
            seals = await repository.live_seals(connection)
        return sum(not self._sealer.knows(sealed) for sealed in seals)

    async def _reseal(self, connection: Connection, item: StoredSecret) -> bool:
        # Opened even where nothing is to do, so that a secret that no key opens any more is noticed now.
        secret = self._sealer.open(item.sealed, _place(item.id))
        if self._sealer.is_current(item.sealed):
            return False
        await repository.reseal(connection, item.id, self._sealer.seal(secret, _place(item.id)))
        return True

    async def _insert(self, connection: Connection, team_id: str, secret: bytes) -> str:
        secret_id = new_id("whs")
        sealed = self._sealer.seal(secret, _place(secret_id))
        values = {"id": secret_id, "team_id": team_id, "sealed": sealed}
        await repository.insert_secret(connection, values)
        return secret_id


async def _hold(connection: Connection, team_id: str) -> None:
    """Let nobody else change the team's secrets until the commit."""
    if not await repository.has_team(connection, team_id, is_to_change=True):
        raise _no_team(team_id)


def _no_team(team_id: str) -> SigningTeamNotFound:
    return SigningTeamNotFound(f"There is no team {team_id!r}.", param="team_id")


def _place(secret_id: str) -> str:
    return place_of(webhook_secrets.name, secret_id, "sealed")
