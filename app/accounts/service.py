"""Who is asking, and what operators do with teams and keys."""

import asyncio
import hmac
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app.accounts import keys, repository
from app.accounts.errors import (
    InvalidApiKey,
    KeyExpired,
    KeyNotFound,
    KeyNotUsable,
    NameTaken,
    RateLimitExceeded,
    TeamNotFound,
)
from app.accounts.records import ApiKey, Caller, Role, Team
from app.accounts.repository import StoredKey
from app.db.connection import Connection
from app.db.engine import Database, StoreUnavailable
from app.db.witness import Witness, unwitnessed
from app.kit.addresses import client_network
from app.kit.events import Events, LocalEvents
from app.kit.ids import new_id
from app.kit.json import Json
from app.kit.limiter import Draw, Limiter, LocalLimiter
from app.kit.telemetry import get_logger

LOG = get_logger(__name__)

DEFAULT_TEAM: Final = "default"
"""The id and the name of the team that the bootstrap keys belong to."""
SUBJECT: Final = "accounts"
"""What events about teams and keys are published under."""
CACHED_S: Final = 5.0
"""How long a key that was revoked or changed may still be taken for what it was."""
RECOGNISED_S: Final = 3600.0
"""How long an outage may last until operators no longer see its metrics; revoking a key needs the database, too."""
_RECOGNISE_WITHIN_S: Final = 1.0
FAILURES_PER_MINUTE: Final = 10
"""Wrong keys that one client's address may try before it is told to wait; right ones are let in all the same."""
_CACHED_KEYS: Final = 10_000
# Bootstrap keys may be any text, so their rows are found by these names; no kid is of this form.
_BOOTSTRAP: Final = {Role.TEAM: "bootstrap", Role.ADMIN: "bootstrap_admin"}
# What an unknown key is compared with, so that it takes as long as a known one.
_NOBODY: Final = secrets.token_bytes(32)
_NO_LOOKUP: Final = ""


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    until: float
    """In seconds of the monotonic clock."""
    ends_at: float
    """When its life is over; infinite where it has no end."""


class Accounts:
    """Teams and their keys."""

    def __init__(
        self,
        database: Database,
        secret_keys: tuple[bytes, ...],
        *,
        events: Events | None = None,
        limiter: Limiter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Derive the peppers.

        Args:
            database: where keys are kept, hashed.
            secret_keys: of 32 bytes or more each, newest first. All are accepted. The newest that every process has,
                by the word of `settle`, digests; before anybody has said so, the oldest, which the others know too.
            events: tells the other processes that a key has changed, so that they need not wait for `CACHED_S`.
            limiter: counts failed attempts, by default those of this process alone.
            clock: seconds that only grow; moved by tests.
        """
        self._database = database
        self._peppers = {keys.name_pepper(secret): keys.derive_pepper(secret) for secret in secret_keys}
        self._events = events or LocalEvents()
        self._limiter = limiter or LocalLimiter()
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        # The digests of bootstrap keys, which may be any text: that one of them is right is no surprise.
        self._expected: set[bytes] = set()

    async def bootstrap(self, api_key: str, admin_key: str) -> None:
        """Write the team `default` and its two keys of the settings; earlier bootstrap keys end with this.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """
        async with self._database.transaction() as connection:
            await repository.put_team(connection, DEFAULT_TEAM, DEFAULT_TEAM)
            await self._put_bootstrap(connection, api_key, admin_key)
        self._changed()

    async def settle(self, api_key: str, admin_key: str) -> int:
        """Take an operator's word that every process has the newest secret: keys are digested with it from now on.

        Those of the settings at once, the others when they are next used, since nobody else has their text. How many
        are left until then.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """
        newest = next(iter(self._peppers))
        async with self._database.transaction() as connection:
            await repository.note_known_everywhere(connection, newest)
            await self._put_bootstrap(connection, api_key, admin_key)
            left = await repository.count_digested_otherwise(connection, newest)
        self._changed()
        return left

    async def count_left_behind(self) -> int:
        """How many keys that still work would not without the older secrets.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """
        async with self._database.reading() as connection:
            return await repository.count_digested_otherwise(connection, next(iter(self._peppers)))

    async def count_lost(self) -> int:
        """How many keys that should work are recognised by none of the secrets; those of the settings are no loss.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """
        async with self._database.reading() as connection:
            return await repository.count_digested_by_none(
                connection, list(self._peppers), but=list(_BOOTSTRAP.values())
            )

    async def _put_bootstrap(self, connection: Connection, api_key: str, admin_key: str) -> None:
        writing = await self._writing(connection)
        stored = {
            item.lookup: item
            for item in await repository.keys_by_lookup(connection, list(_BOOTSTRAP.values()))
        }
        for role, text in ((Role.TEAM, api_key), (Role.ADMIN, admin_key)):
            self._expected.add(keys.digest(text, next(iter(self._peppers.values()))))
            known = stored.get(_BOOTSTRAP[role])
            if known is not None and self._digested_by(text, known.digest) is not None:
                # The same key, under whichever secret: what became of it stays, its revocation too.
                await self._digest_anew(connection, text, known, writing)
                continue
            values: dict[str, object] = {
                "id": new_id("key"),
                "team_id": DEFAULT_TEAM,
                "name": _BOOTSTRAP[role],
                "role": role.value,
                "lookup": _BOOTSTRAP[role],
                "digest": keys.digest(text, self._peppers[writing]),
                "digested_by": writing,
                "hint": keys.hint_of(text),
                "limits": {},
            }
            await repository.put_key(connection, values)

    async def _digest_anew(self, connection: Connection, text: str, stored: StoredKey, writing: str) -> None:
        """Digest a key with a pepper, unless it is with a newer one already."""
        current = self._digested_by(text, stored.digest)
        name = next(name for name in self._peppers if name in {current, writing})
        if name != stored.digested_by:
            digest = keys.digest(text, self._peppers[name])
            await repository.digest_anew(connection, stored, digest, name)

    async def _writing(self, connection: Connection) -> str:
        """The pepper to digest with, so that no process that knows an older secret alone is shut out."""
        everywhere = await repository.known_everywhere(connection, list(self._peppers))
        return next((name for name in self._peppers if name in everywhere), list(self._peppers)[-1])

    def _digested_by(self, text: str, digest: bytes) -> str | None:
        """The pepper with which a digest was made of this text; None: it is of another one."""
        matches = (
            name
            for name, pepper in self._peppers.items()
            if hmac.compare_digest(keys.digest(text, pepper), digest)
        )
        return next(matches, None)

    async def authenticate(self, text: str, *, client: str | None = None) -> Caller:
        """Find out whose key this is; `client` is the address that it came from.

        A right key is let in however many wrong ones came from its address, where others may sit as well.

        Raises:
            InvalidApiKey: nobody's, or a revoked one.
            KeyExpired: it was right once.
            RateLimitExceeded: as either of these, and so were the last ones from this address.
            StoreUnavailable: the database did not answer in time.
        """
        if not keys.is_presentable(text):
            await self._count_failure(client)
            raise _invalid()
        digests = [keys.digest(text, pepper) for pepper in self._peppers.values()]
        known = self._known.get(digests[0])
        if known is not None and self._clock() < known.until:
            return known.caller
        # What does not look like a key is counted before it costs a look into the database. What does costs one, of
        # one row: nothing cheaper tells whether it is right.
        is_likely = keys.lookup_of(text) is not None or digests[0] in self._expected
        if not is_likely:
            await self._count_failure(client)
        try:
            caller = await self._look_up(text, digests)
        except (InvalidApiKey, KeyExpired):
            if is_likely:
                await self._count_failure(client)
            raise
        if not is_likely:
            self._expected.add(digests[0])
        return caller

    async def _look_up(self, text: str, digests: Sequence[bytes]) -> Caller:
        looked_at = self._clock()
        # One query of one shape whatever the key is, so that its time tells nothing.
        lookups = [keys.lookup_of(text) or _NO_LOOKUP, *_BOOTSTRAP.values()]
        async with self._database.reading() as connection:
            stored = await repository.keys_by_lookup(connection, lookups)
        # What is known is known from now on, or is known no longer.
        self._known.pop(digests[0], None)
        found = _matching(stored, lookups, digests)
        if found is None or found.key.revoked_at is not None:
            raise _invalid()
        expires_at = found.key.expires_at
        lives_s = math.inf if expires_at is None else (expires_at - found.at).total_seconds()
        if lives_s <= 0:
            raise KeyExpired("This API key has expired. Ask an operator of this gateway for a new one.")
        caller = Caller(
            team_id=found.key.team_id,
            api_key_id=found.key.id,
            role=found.key.role,
            limits=found.key.limits,
        )
        if found.digested_by != next(iter(self._peppers)):
            await self._move_on(text, found)
        known = _Known(caller, until=looked_at + min(lives_s, CACHED_S), ends_at=looked_at + lives_s)
        self._remember(digests[0], known)
        return caller

    async def recognise(self, text: str, *, client: str | None = None) -> Caller:
        """As `authenticate`, but a key that was right lately stays so while the database is away.

        For what has to be seen in an outage. Nothing that changes anything may rely on it.

        Raises:
            InvalidApiKey: nobody's, or a revoked one.
            KeyExpired: it was right once.
            StoreUnavailable: the database did not answer in time, and the key was not seen within `RECOGNISED_S`.
        """
        try:
            async with asyncio.timeout(_RECOGNISE_WITHIN_S):
                return await self.authenticate(text, client=client)
        except (StoreUnavailable, TimeoutError) as exc:
            known = self._known.get(keys.digest(text, next(iter(self._peppers.values()))))
            now_s = self._clock()
            if known is None or now_s >= min(known.until + RECOGNISED_S, known.ends_at):
                raise StoreUnavailable("the database did not tell in time whose key this is") from exc
            return known.caller

    async def _move_on(self, text: str, stored: StoredKey) -> None:
        """Digest a key with the newest secret that every process has, now that its text is here."""
        try:
            async with self._database.reading() as connection:
                writing = await self._writing(connection)
            if stored.digested_by == writing:
                return
            async with self._database.transaction() as connection:
                await self._digest_anew(connection, text, stored, writing)
        except StoreUnavailable as exc:
            LOG.warning("key.not_digested_anew", reason=str(exc))  # when it is next used, then

    async def create_team(
        self, name: str, limits: Mapping[str, Json], *, witness: Witness[Team] = unwitnessed
    ) -> Team:
        """Write a new team.

        Raises:
            NameTaken: another team has this name.
        """
        async with self._database.transaction() as connection:
            values = {"id": new_id("team"), "name": name, "limits": dict(limits)}
            team = await repository.insert_team(connection, values)
            if team is None:
                raise _name_taken(name)
            await witness(connection, None, team)
        return team

    async def find_team(self, team_id: str) -> Team:
        """Look at a team.

        Raises:
            TeamNotFound: there is no such team.
        """
        async with self._database.reading() as connection:
            return await _team(connection, team_id)

    async def change_team(
        self,
        team_id: str,
        *,
        name: str | None = None,
        limits: Mapping[str, Json] | None = None,
        witness: Witness[Team] = unwitnessed,
    ) -> Team:
        """Rename a team, or change its limits; None leaves either as it is.

        A member of `limits` takes the place of the one that was, null lifts it, and the others stay.

        Raises:
            TeamNotFound: there is no such team.
            NameTaken: another team has this name.
        """
        async with self._database.transaction() as connection:
            before = await _team(connection, team_id, is_to_change=True)
            if name is not None and await repository.is_name_taken(connection, name, but=team_id):
                raise _name_taken(name)
            values = {"name": name or before.name, "limits": _merged(before.limits, limits)}
            team = await repository.update_team(connection, team_id, values)
            await witness(connection, before, team)
        self._changed()
        return team

    async def list_teams(self, *, after: str | None = None, limit: int = 20) -> tuple[Sequence[Team], bool]:
        """Look at up to `limit` teams, newest first, after the team `after`; and whether there are more.

        Raises:
            TeamNotFound: `after` is no team.
        """
        async with self._database.reading() as connection:
            if after is not None and await repository.find_team(connection, after) is None:
                raise _no_such_team(after, param="after")
            found = await repository.list_teams(connection, after=after, limit=limit + 1)
        return found[:limit], len(found) > limit

    async def create_key(
        self,
        team_id: str,
        name: str,
        *,
        limits: Mapping[str, Json],
        expires_at: datetime | None = None,
        role: Role = Role.TEAM,
        witness: Witness[ApiKey] = unwitnessed,
    ) -> tuple[ApiKey, str]:
        """Write a new key; with its text, which nobody can read again.

        Raises:
            TeamNotFound: there is no such team.
        """
        async with self._database.transaction() as connection:
            await _team(connection, team_id)
            key, text = await self._insert_key(
                connection, team_id, name, limits=limits, expires_at=expires_at, role=role
            )
            await witness(connection, None, key)
        return key, text

    async def find_key(self, key_id: str) -> ApiKey:
        """Look at a key.

        Raises:
            KeyNotFound: there is no such key.
        """
        async with self._database.reading() as connection:
            return await _key(connection, key_id)

    async def change_key(
        self,
        key_id: str,
        *,
        name: str | None = None,
        limits: Mapping[str, Json] | None = None,
        expiry: Mapping[str, datetime | None] | None = None,
        witness: Witness[ApiKey] = unwitnessed,
    ) -> ApiKey:
        """Rename a key, or change its limits as `change_team` does: at once here, elsewhere within `CACHED_S`.

        `expiry`: the new `expires_at`, if there is to be one.

        Raises:
            KeyNotFound: there is no such key.
            KeyNotUsable: a key of the settings does not expire.
        """
        async with self._database.transaction() as connection:
            before = await _key(connection, key_id, is_to_change=True)
            if expiry:
                await _refuse_bootstrap(connection, key_id)
            values = {"name": name or before.name, "limits": _merged(before.limits, limits), **(expiry or {})}
            key = await repository.update_key(connection, key_id, values)
            await witness(connection, before, key)
        self._changed()
        return key

    async def rotate_key(
        self, key_id: str, *, overlap_s: float, witness: Witness[ApiKey] = unwitnessed
    ) -> tuple[ApiKey, ApiKey, str]:
        """Write a key that takes another's place: the old one, which expires in `overlap_s`, the new, and its text.

        The new key has the team, name, role, limits and expiry of the old one, and goes on with its budgets and rates.

        Raises:
            KeyNotFound: there is no such key.
            KeyNotUsable: it is revoked, expired, rotated already, or one of the settings.
        """
        async with self._database.transaction() as connection:
            before = await _key(connection, key_id, is_to_change=True)
            await _refuse_bootstrap(connection, key_id)
            _refuse_replaced(before)
            if await repository.expire_key(connection, key_id, in_s=overlap_s) is None:
                raise _over(key_id)
            key, text = await self._insert_key(
                connection,
                before.team_id,
                before.name,
                limits=before.limits,
                expires_at=before.expires_at,
                role=before.role,
                line_id=before.line_id or before.id,
            )
            old = await repository.update_key(connection, key_id, {"replaced_by": key.id})
            await witness(connection, before, key)
        self._changed()
        return old, key, text

    async def check_rotation(self, key_id: str, *, overlap_s: float) -> tuple[ApiKey, datetime]:
        """See whether `rotate_key` would do: the key as it is, and when it would expire.

        Raises:
            KeyNotFound: there is no such key.
            KeyNotUsable: it is revoked, expired, rotated already, or one of the settings.
        """
        async with self._database.reading() as connection:
            key = await _key(connection, key_id)
            await _refuse_bootstrap(connection, key_id)
            at = await repository.time(connection)
        _refuse_replaced(key)
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= at):
            raise _over(key_id)
        ends_at = at + timedelta(seconds=overlap_s)
        return key, ends_at if key.expires_at is None else min(ends_at, key.expires_at)

    async def list_keys(
        self, team_id: str | None = None, *, after: str | None = None, limit: int = 20
    ) -> tuple[Sequence[ApiKey], bool]:
        """Look at up to `limit` keys of a team (None: of all), newest first; and whether there are more.

        Raises:
            KeyNotFound: `after` is no key.
        """
        async with self._database.reading() as connection:
            if after is not None and await repository.find_key(connection, after) is None:
                raise _no_such_key(after, param="after")
            found = await repository.list_keys(connection, team_id, after=after, limit=limit + 1)
        return found[:limit], len(found) > limit

    async def revoke_key(self, key_id: str, *, witness: Witness[ApiKey] = unwitnessed) -> ApiKey:
        """End a key's life: at once here, in other processes when they hear of it, within `CACHED_S` at the latest.

        Raises:
            KeyNotFound: there is no such key.
            KeyNotUsable: it is the operators' one of the settings.
        """
        async with self._database.transaction() as connection:
            before = await _key(connection, key_id, is_to_change=True)
            await _refuse_last_way_in(connection, key_id)
            await repository.revoke(connection, key_id)
            key = await _key(connection, key_id)
            await witness(connection, before, key)
        self._changed()
        return key

    async def check_revocation(self, key_id: str) -> ApiKey:
        """See whether `revoke_key` would do: the key as it is.

        Raises:
            KeyNotFound: there is no such key.
            KeyNotUsable: it is the operators' one of the settings.
        """
        async with self._database.reading() as connection:
            key = await _key(connection, key_id)
            await _refuse_last_way_in(connection, key_id)
        return key

    def forget(self) -> None:
        """Look every key up again when it is next used; for a process that hears of a change."""
        self._known.clear()

    async def _count_failure(self, client: str | None) -> None:
        network = client_network(client)
        draw = Draw(bucket=f"failures:{network}", per_minute=FAILURES_PER_MINUTE, amount=1)
        (level,) = await self._limiter.take([draw])
        if level.wait_s > 0:
            message = (
                "Requests with an incorrect API key came from this address too often. Send a key of this gateway; "
                "a right one is let in at any time."
            )
            raise RateLimitExceeded(message, limit="failed_authentications", retry_after_s=level.wait_s)
        # Once for many attempts: whoever may try only as fast as the bucket fills draws the last one each time.
        if level.remaining == 0:
            LOG.warning("authentication.failing", address=network)

    def _changed(self) -> None:
        self.forget()
        self._events.publish(SUBJECT)

    async def _insert_key(
        self,
        connection: Connection,
        team_id: str,
        name: str,
        *,
        limits: Mapping[str, Json],
        expires_at: datetime | None,
        role: Role,
        line_id: str | None = None,
    ) -> tuple[ApiKey, str]:
        made = keys.make_key(is_admin=role.is_operator)
        writing = await self._writing(connection)
        values = {
            "id": new_id("key"),
            "team_id": team_id,
            "name": name,
            "role": role.value,
            "lookup": made.lookup,
            "digest": keys.digest(made.text, self._peppers[writing]),
            "digested_by": writing,
            "hint": keys.hint_of(made.text),
            "limits": dict(limits),
            "expires_at": expires_at,
            "line_id": line_id,
        }
        return await repository.insert_key(connection, values), made.text

    def _remember(self, digest: bytes, known: _Known) -> None:
        if len(self._known) >= _CACHED_KEYS:
            self._known.clear()
        self._known[digest] = known


def _matching(
    stored: Sequence[StoredKey], lookups: Sequence[str], digests: Sequence[bytes]
) -> StoredKey | None:
    """The stored key that the presented one is; compares as often for an unknown key as for a known one."""
    by_lookup = {item.lookup: item for item in stored}
    found = None
    for lookup in lookups:
        candidate = by_lookup.get(lookup)
        expected = _NOBODY if candidate is None else candidate.digest
        for digest in digests:
            if hmac.compare_digest(digest, expected):
                found = candidate
    return found


def _invalid() -> InvalidApiKey:
    return InvalidApiKey(
        "Incorrect API key provided. Send a key of this gateway as 'Authorization: Bearer KEY'."
    )


async def _team(connection: Connection, team_id: str, *, is_to_change: bool = False) -> Team:
    team = await repository.find_team(connection, team_id, is_to_change=is_to_change)
    if team is None:
        raise _no_such_team(team_id)
    return team


async def _key(connection: Connection, key_id: str, *, is_to_change: bool = False) -> ApiKey:
    key = await repository.find_key(connection, key_id, is_to_change=is_to_change)
    if key is None:
        raise _no_such_key(key_id)
    return key


async def _refuse_bootstrap(connection: Connection, key_id: str) -> None:
    if await repository.lookup_of_key(connection, key_id) in _BOOTSTRAP.values():
        raise KeyNotUsable(
            f"The key {key_id!r} stands in the settings. Change DARKROOM_API_KEY or DARKROOM_ADMIN_KEY and restart.",
            param="id",
        )


async def _refuse_last_way_in(connection: Connection, key_id: str) -> None:
    """Operators who revoked it would have locked themselves out until somebody changes the settings anyway."""
    if await repository.lookup_of_key(connection, key_id) == _BOOTSTRAP[Role.ADMIN]:
        raise KeyNotUsable(
            f"The key {key_id!r} is the operators' key of the settings. To end it, set DARKROOM_ADMIN_KEY to another "
            "one and restart every process.",
            param="id",
        )


def _refuse_replaced(key: ApiKey) -> None:
    """Its expiry is the end of the overlap, which a second successor would take over as its own."""
    if key.replaced_by is not None:
        raise KeyNotUsable(
            f"The key {key.id!r} was rotated already: {key.replaced_by!r} took its place. Rotate that one.",
            param="id",
        )


def _over(key_id: str) -> KeyNotUsable:
    return KeyNotUsable(f"The key {key_id!r} is revoked or expired. Create a new key instead.", param="id")


def _merged(limits: Mapping[str, Json], changes: Mapping[str, Json] | None) -> dict[str, Json]:
    merged = {**limits, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def _name_taken(name: str) -> NameTaken:
    return NameTaken(f"There is a team {name!r} already. Choose another name.", param="name")


def _no_such_team(team_id: str, param: str = "team_id") -> TeamNotFound:
    return TeamNotFound(f"There is no team {team_id!r}.", param=param)


def _no_such_key(key_id: str, param: str = "id") -> KeyNotFound:
    return KeyNotFound(f"There is no key {key_id!r}.", param=param)
