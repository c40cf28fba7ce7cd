"""`darkroom secrets rotate`, on a real database."""

import asyncio

import pytest

from app.accounts.service import Accounts
from app.db.engine import Database
from app.db.tables.teams import teams
from app.kit.sealing import Sealer
from app.webhooks.vault import Vault
from tests.cli.command import darkroom

OLD, NEW = "Q7vJ2mXc9LrT4wYpZ8sKd3FhN6bGa1Ue", "h5RzW8kPq2TnV7cXs4JmL9dGy3BfA6Ue"
_KEYS = (("API_KEY", "m4KtB9xQz7LwR2vHs8NcJ5pYd6GfT3aE"), ("ADMIN_KEY", "n4KtB9xQz7LwR2vHs8NcJ5pYd6GfT3aE"))


async def _keep_secret(url: str, *secrets: str) -> list[bytes]:
    """What signs for a team, made the first time."""
    database = Database(url)
    try:
        async with database.transaction() as connection:
            if (await connection.execute(teams.select())).first() is None:
                await connection.execute(teams.insert().values(id="team_1", name="lab", limits={}))
        return await Vault(database, Sealer(tuple(item.encode() for item in secrets))).signing_secrets(
            "team_1"
        )
    finally:
        await database.close()


async def _keep_keys(url: str) -> None:
    """The keys of the settings, and one of a team, as a gateway with the old secret made them."""
    database = Database(url)
    try:
        accounts = Accounts(database, (OLD.encode(),))
        await accounts.bootstrap(*(key for _, key in _KEYS))
        await accounts.create_key("default", "mine", limits={})
    finally:
        await database.close()


def test_stored_secrets_move_to_the_newest_secret_and_stay_what_they_are(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    kept = asyncio.run(_keep_secret(database_url, OLD))
    for name, value in (
        ("DATABASE_URL", database_url),
        ("SECRET_KEY", f"{NEW},{OLD}"),
        *_KEYS,
    ):
        monkeypatch.setenv(f"DARKROOM_{name}", value)

    asyncio.run(_keep_keys(database_url))
    rotated = darkroom("secrets", "rotate").out
    assert rotated.startswith("1 of 1 stored secrets were sealed anew")
    assert "1 API keys are still recognised by an older secret" in rotated
    examined = {item["detail"]: item for item in darkroom("doctor", "--json").json["checks"]}
    left = "1 API keys are recognised by an older secret of DARKROOM_SECRET_KEY alone"
    assert examined[left]["verdict"] == "warn"
    assert darkroom("secrets", "rotate").out.startswith("0 of 1 ")

    assert asyncio.run(_keep_secret(database_url, NEW)) == kept
    monkeypatch.setenv("DARKROOM_SECRET_KEY", OLD)
    refused = darkroom("secrets", "rotate")
    assert refused.code == 1
    assert "DARKROOM_SECRET_KEY no longer holds" in refused.err


def test_what_a_lost_secret_takes_along_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    asyncio.run(_keep_secret(database_url, OLD))
    asyncio.run(_keep_keys(database_url))
    for name, value in (("DATABASE_URL", database_url), ("SECRET_KEY", NEW), *_KEYS):
        monkeypatch.setenv(f"DARKROOM_{name}", value)

    def secrets() -> list[dict[str, str]]:
        return [item for item in darkroom("doctor", "--json").json["checks"] if item["check"] == "secrets"]

    (found,) = secrets()
    assert found["verdict"] == "fail"
    assert "the secret of 1 API keys" in found["detail"]
    assert "of 1 webhook secrets" in found["detail"]

    monkeypatch.setenv("DARKROOM_SECRET_KEY", f"{NEW},{OLD}")
    assert "fail" not in {item["verdict"] for item in secrets()}


def test_before_the_first_start_there_is_nothing_to_rotate() -> None:
    assert "start the gateway once" in darkroom("secrets", "rotate").err
