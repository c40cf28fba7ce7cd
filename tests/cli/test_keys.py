"""`darkroom teams` and `darkroom keys`, over the admin API."""

import pytest

from tests.cli.command import darkroom
from tests.cli.gateway import FakeGateway


def test_a_team_is_created_and_listed(gateway: FakeGateway) -> None:
    created = darkroom("teams", "create", "design")
    listed = darkroom("teams", "list")

    assert created.out == "The team 'design' has the id team_1.\n"
    assert "team_1  design" in listed.out
    assert all(each.headers["authorization"] == f"Bearer {gateway.admin_key}" for each in gateway.asked)


def test_a_key_is_printed_alone_so_that_scripts_can_take_it(gateway: FakeGateway) -> None:
    darkroom("teams", "create", "design")

    ended = darkroom("keys", "create", "ci", "--team", "design", "--expires-at", "2027-01-31T00:00:00Z")

    assert ended.out == "dk_0123456789_shown_once\n"
    assert "shown this once" in ended.err
    assert gateway.asked[-1].body == {
        "name": "ci",
        "team_id": "team_1",
        "expires_at": "2027-01-31T00:00:00Z",
    }


def test_a_team_is_meant_by_id_or_by_name_and_must_be_one(gateway: FakeGateway) -> None:
    for name in ("design", "design", "print"):
        darkroom("teams", "create", name)

    assert darkroom("keys", "create", "ci", "--team", "team_2").code == 0
    assert gateway.asked[-1].body["team_id"] == "team_2"
    assert "Several teams" in darkroom("keys", "create", "ci", "--team", "design").err
    missing = darkroom("keys", "create", "ci", "--team", "nobody")
    assert missing.code == 2
    assert missing.err == "There is no team 'nobody'. There are: design, design, print.\n"


def test_keys_are_listed_by_team(gateway: FakeGateway) -> None:
    for name in ("design", "print"):
        darkroom("teams", "create", name)
        darkroom("keys", "create", f"{name}-ci", "--team", name)

    assert [key["name"] for key in darkroom("keys", "list", "--json").json] == ["design-ci", "print-ci"]
    table = darkroom("keys", "list", "--team", "print").out
    assert "print-ci" in table
    assert "design-ci" not in table
    assert "never" in table


def test_a_key_is_revoked(gateway: FakeGateway) -> None:
    ended = darkroom("keys", "revoke", "key_1")

    assert ended.out == "The key key_1 is revoked.\n"
    assert (gateway.asked[-1].method, gateway.asked[-1].path) == ("DELETE", "/admin/v1/keys/key_1")


def test_an_api_key_is_not_an_admin_key(gateway: FakeGateway) -> None:
    ended = darkroom("teams", "list", "--api-key", gateway.api_key)

    assert ended.code == 4


def test_operators_are_looked_for_where_they_are_served(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_ADMIN_LISTEN", gateway.url.removeprefix("http://"))
    monkeypatch.setenv("DARKROOM_PUBLIC_URL", "http://127.0.0.1:9")

    assert darkroom("teams", "list").code == 0
    assert darkroom("jobs", "list").code == 3


def test_a_listener_without_operators_says_where_they_may_be(gateway: FakeGateway) -> None:
    nothing = "There is nothing at GET '/admin/v1/teams'."
    gateway.refusal = (404, {"error": {"message": nothing, "code": "not_found"}})

    ended = darkroom("teams", "list")

    assert ended.code == 1
    assert "DARKROOM_ADMIN_LISTEN" in ended.err
