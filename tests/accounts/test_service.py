"""Authentication, bootstrap keys, and what operators do with teams and keys."""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from app.accounts.errors import InvalidApiKey, KeyExpired, KeyNotFound, NameTaken, TeamNotFound
from app.accounts.keys import make_key
from app.accounts.records import Role
from app.accounts.service import CACHED_S, DEFAULT_TEAM, RECOGNISED_S, Accounts
from app.db.engine import Database, StoreUnavailable
from app.db.tables.api_keys import api_keys

SECRET = b"0123456789abcdef0123456789abcdef"
NEWER = b"fedcba9876543210fedcba9876543210"
API_KEY = "any text of the operator's choice".replace(" ", "-")
ADMIN_KEY = "another text of the operator's own".replace(" ", "-")


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, pool_size=2)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def accounts(database: Database, clock: Clock) -> Accounts:
    made = Accounts(database, (SECRET,), clock=clock)
    await made.bootstrap(API_KEY, ADMIN_KEY)
    return made


async def test_bootstrap_keys_open_the_default_team(accounts: Accounts) -> None:
    caller = await accounts.authenticate(API_KEY)
    operator = await accounts.authenticate(ADMIN_KEY)
    assert (caller.team_id, caller.role) == (DEFAULT_TEAM, Role.TEAM)
    assert (operator.team_id, operator.role) == (DEFAULT_TEAM, Role.ADMIN)
    assert caller.api_key_id != operator.api_key_id


async def test_starting_again_with_the_same_keys_changes_nothing(accounts: Accounts) -> None:
    before = await accounts.authenticate(API_KEY)
    await accounts.bootstrap(API_KEY, ADMIN_KEY)
    assert await accounts.authenticate(API_KEY) == before


async def test_new_bootstrap_keys_replace_the_earlier_ones(accounts: Accounts) -> None:
    before = await accounts.authenticate(API_KEY)
    await accounts.bootstrap("a-new-bootstrap-key-of-32-characters", ADMIN_KEY)
    after = await accounts.authenticate("a-new-bootstrap-key-of-32-characters")
    assert after.api_key_id == before.api_key_id
    with pytest.raises(InvalidApiKey):
        await accounts.authenticate(API_KEY)


async def test_a_created_key_opens_its_team_with_its_limits(accounts: Accounts) -> None:
    team = await accounts.create_team("lab", {"max_jobs": 3})
    key, text = await accounts.create_key(team.id, "notebook", limits={"requests_per_minute": 60})
    caller = await accounts.authenticate(text)
    assert (caller.team_id, caller.api_key_id) == (team.id, key.id)
    assert caller.limits == {"requests_per_minute": 60}


async def test_an_operator_can_have_further_admin_keys(accounts: Accounts) -> None:
    _, text = await accounts.create_key(DEFAULT_TEAM, "on call", limits={}, role=Role.ADMIN)
    assert (await accounts.authenticate(text)).role is Role.ADMIN


async def test_a_well_formed_key_that_nobody_has_is_refused(accounts: Accounts) -> None:
    with pytest.raises(InvalidApiKey):
        await accounts.authenticate(make_key(is_admin=False).text)


@pytest.mark.parametrize("text", ["", "short", "x" * 40, "bootstrap", "bootstrap".ljust(40, "_")])
async def test_a_key_that_nobody_has_is_refused(accounts: Accounts, text: str) -> None:
    with pytest.raises(InvalidApiKey) as refused:
        await accounts.authenticate(text)
    assert not text or text not in refused.value.message


async def test_a_right_kid_with_a_wrong_secret_is_refused(accounts: Accounts, database: Database) -> None:
    stranger = make_key(is_admin=False)
    key, _ = await accounts.create_key(DEFAULT_TEAM, "mine", limits={})
    async with database.transaction() as connection:
        await connection.execute(
            api_keys.update().where(api_keys.c.id == key.id).values(lookup=stranger.lookup)
        )
    with pytest.raises(InvalidApiKey):
        await accounts.authenticate(stranger.text)


async def test_an_unknown_key_is_as_much_work_as_a_known_one(
    accounts: Accounts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = make_key(is_admin=False)
    key, right = await accounts.create_key(DEFAULT_TEAM, "mine", limits={})
    work: list[object] = []

    def compared(one: bytes, other: bytes) -> bool:
        work.append((len(one), len(other)))
        return one == other

    async def work_of(text: str) -> list[object]:
        work.clear()
        with (
            database.observed(lambda sql, values: work.append((sql, len(values)))),
            contextlib.suppress(InvalidApiKey),
        ):
            await accounts.authenticate(text)
        return list(work)

    monkeypatch.setattr("app.accounts.service.hmac.compare_digest", compared)
    of_right = await work_of(right)
    assert len(of_right) >= 4
    assert await work_of(known.text) == of_right
    async with database.transaction() as connection:
        await connection.execute(api_keys.update().where(api_keys.c.id == key.id).values(lookup=known.lookup))
    assert await work_of(known.text) == of_right
    assert await work_of("any-text-that-could-be-a-bootstrap-key") == of_right


async def test_the_database_holds_no_key(accounts: Accounts, database: Database) -> None:
    _, text = await accounts.create_key(DEFAULT_TEAM, "mine", limits={})
    async with database.reading() as connection:
        rows = (await connection.execute(select(api_keys))).all()
    assert not any(secret in repr(rows) for secret in (text, API_KEY, ADMIN_KEY))


async def test_a_revoked_key_ends_at_once_here_and_within_seconds_elsewhere(
    accounts: Accounts, database: Database, clock: Clock
) -> None:
    key, text = await accounts.create_key(DEFAULT_TEAM, "mine", limits={})
    elsewhere = Accounts(database, (SECRET,), clock=clock)
    await elsewhere.authenticate(text)
    await accounts.authenticate(text)
    assert (await accounts.revoke_key(key.id)).revoked_at is not None
    with pytest.raises(InvalidApiKey):
        await accounts.authenticate(text)
    assert (await elsewhere.authenticate(text)).api_key_id == key.id
    clock.now_s += CACHED_S
    with pytest.raises(InvalidApiKey):
        await elsewhere.authenticate(text)


async def test_a_key_ends_when_it_expires_though_it_is_remembered(accounts: Accounts, clock: Clock) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    _, text = await accounts.create_key(DEFAULT_TEAM, "visitor", limits={}, expires_at=soon)
    assert (await accounts.authenticate(text)).team_id == DEFAULT_TEAM
    gone = datetime.now(UTC) - timedelta(seconds=1)
    _, text = await accounts.create_key(DEFAULT_TEAM, "visitor", limits={}, expires_at=gone)
    with pytest.raises(KeyExpired):
        await accounts.authenticate(text)


async def test_keys_hashed_under_an_older_secret_are_still_accepted(
    accounts: Accounts, database: Database
) -> None:
    _, text = await accounts.create_key(DEFAULT_TEAM, "mine", limits={})
    rotated = Accounts(database, (NEWER, SECRET))
    assert (await rotated.authenticate(text)).team_id == DEFAULT_TEAM
    assert (await rotated.authenticate(API_KEY)).team_id == DEFAULT_TEAM
    with pytest.raises(InvalidApiKey):
        await Accounts(database, (NEWER,)).authenticate(text)


async def test_while_secrets_change_a_process_that_knows_the_old_one_alone_serves_everybody(
    accounts: Accounts, database: Database, clock: Clock
) -> None:
    _, earlier = await accounts.create_key(DEFAULT_TEAM, "mine", limits={})
    first = Accounts(database, (NEWER, SECRET), clock=clock)
    await first.bootstrap(API_KEY, ADMIN_KEY)
    _, later = await first.create_key(DEFAULT_TEAM, "made meanwhile", limits={})
    for text in (API_KEY, ADMIN_KEY, earlier, later):
        await first.authenticate(text)
    clock.now_s += CACHED_S
    accounts.forget()
    for text in (API_KEY, ADMIN_KEY, earlier, later):
        assert (await accounts.authenticate(text)).team_id == DEFAULT_TEAM


async def test_once_every_process_has_the_new_secret_keys_follow_as_they_are_used(
    accounts: Accounts, database: Database, clock: Clock
) -> None:
    _, used = await accounts.create_key(DEFAULT_TEAM, "used", limits={})
    _, unused = await accounts.create_key(DEFAULT_TEAM, "unused", limits={})
    revoked, _ = await accounts.create_key(DEFAULT_TEAM, "revoked", limits={})
    await accounts.revoke_key(revoked.id)
    both = Accounts(database, (NEWER, SECRET), clock=clock)
    assert await both.count_left_behind() == 4
    await both.authenticate(used)
    assert await both.count_left_behind() == 4
    assert await both.settle(API_KEY, ADMIN_KEY) == 2
    await both.authenticate(used)
    assert await both.count_left_behind() == 1
    _, fresh = await both.create_key(DEFAULT_TEAM, "fresh", limits={})
    alone = Accounts(database, (NEWER,), clock=clock)
    for text in (API_KEY, ADMIN_KEY, used, fresh):
        assert (await alone.authenticate(text)).team_id == DEFAULT_TEAM
    with pytest.raises(InvalidApiKey):
        await alone.authenticate(unused)


async def test_a_revoked_key_of_the_settings_stays_so_when_secrets_change(
    accounts: Accounts, database: Database
) -> None:
    await accounts.revoke_key((await accounts.authenticate(API_KEY)).api_key_id)
    both = Accounts(database, (NEWER, SECRET))
    await both.settle(API_KEY, ADMIN_KEY)
    alone = Accounts(database, (NEWER,))
    await alone.bootstrap(API_KEY, ADMIN_KEY)
    with pytest.raises(InvalidApiKey):
        await alone.authenticate(API_KEY)
    assert (await alone.authenticate(ADMIN_KEY)).role is Role.ADMIN


async def test_a_key_that_the_newest_secret_made_is_left_there(
    accounts: Accounts, database: Database
) -> None:
    """As an earlier release made them, which digested with the newest from the first."""
    newer = Accounts(database, (NEWER,))
    _, text = await newer.create_key(DEFAULT_TEAM, "mine", limits={})
    async with database.transaction() as connection:
        await connection.execute(update(api_keys).values(digested_by=None))
    both = Accounts(database, (NEWER, SECRET))
    await both.authenticate(text)
    assert (await newer.authenticate(text)).team_id == DEFAULT_TEAM
    assert await both.count_left_behind() == 2


async def test_two_teams_cannot_have_one_name(accounts: Accounts) -> None:
    await accounts.create_team("lab", {})
    with pytest.raises(NameTaken, match="'lab'"):
        await accounts.create_team("lab", {})


async def test_a_key_needs_a_team(accounts: Accounts) -> None:
    with pytest.raises(TeamNotFound):
        await accounts.create_key("team_nobody", "mine", limits={})


async def test_lists_are_paged_newest_first(accounts: Accounts) -> None:
    made = [await accounts.create_team(f"team {number}", {}) for number in range(3)]
    first, has_more = await accounts.list_teams(limit=2)
    assert [team.id for team in first] == [made[2].id, made[1].id]
    assert has_more
    rest, has_more = await accounts.list_teams(after=first[-1].id, limit=2)
    assert [team.id for team in rest] == [made[0].id, DEFAULT_TEAM]
    assert not has_more


async def test_keys_are_listed_by_team(accounts: Accounts) -> None:
    team = await accounts.create_team("lab", {})
    made = [(await accounts.create_key(team.id, str(number), limits={}))[0] for number in range(3)]
    first, has_more = await accounts.list_keys(team.id, limit=2)
    rest, _ = await accounts.list_keys(team.id, after=first[-1].id, limit=2)
    assert [key.id for key in [*first, *rest]] == [key.id for key in reversed(made)]
    assert has_more
    everyone, _ = await accounts.list_keys(limit=20)
    assert len(everyone) == 5


async def test_unknown_places_in_a_list_are_refused(accounts: Accounts) -> None:
    with pytest.raises(TeamNotFound):
        await accounts.list_teams(after="team_nobody")
    with pytest.raises(KeyNotFound):
        await accounts.list_keys(after="key_nobody")
    with pytest.raises(KeyNotFound):
        await accounts.revoke_key("key_nobody")


@pytest.fixture
def outage(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Takes the database away."""

    def away() -> None:
        raise StoreUnavailable("away")

    return lambda: monkeypatch.setattr(database, "reading", away)


async def test_in_an_outage_a_key_is_recognised_for_an_hour(
    accounts: Accounts, clock: Clock, outage: Callable[[], None]
) -> None:
    before = await accounts.recognise(ADMIN_KEY)
    outage()
    clock.now_s += RECOGNISED_S
    assert await accounts.recognise(ADMIN_KEY) == before
    with pytest.raises(StoreUnavailable):
        await accounts.authenticate(ADMIN_KEY)
    with pytest.raises(StoreUnavailable):
        await accounts.recognise(API_KEY)
    with pytest.raises(InvalidApiKey):
        await accounts.recognise("")
    clock.now_s += CACHED_S
    with pytest.raises(StoreUnavailable):
        await accounts.recognise(ADMIN_KEY)


async def test_a_key_that_is_over_is_not_recognised_in_an_outage(
    accounts: Accounts, clock: Clock, outage: Callable[[], None]
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    _, short = await accounts.create_key(DEFAULT_TEAM, "short", limits={}, expires_at=soon)
    await accounts.recognise(short)
    outage()
    clock.now_s += 61
    with pytest.raises(StoreUnavailable):
        await accounts.recognise(short)


async def test_a_key_that_was_found_to_be_revoked_is_not_recognised_in_an_outage(
    accounts: Accounts, database: Database, clock: Clock, outage: Callable[[], None]
) -> None:
    key, text = await accounts.create_key(DEFAULT_TEAM, "leaked", limits={})
    elsewhere = Accounts(database, (SECRET,), clock=clock)
    await elsewhere.recognise(text)
    await accounts.revoke_key(key.id)
    clock.now_s += CACHED_S
    with pytest.raises(InvalidApiKey):
        await elsewhere.recognise(text)
    outage()
    with pytest.raises(StoreUnavailable):
        await elsewhere.recognise(text)
