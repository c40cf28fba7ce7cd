"""Teams and keys, as operators create, limit, rotate and revoke them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from app.accounts.errors import InvalidApiKey, KeyExpired
from tests.admin.conftest import Office
from tests.kitchen import ADMIN_KEY, API_KEY

LIMITS: dict[str, Any] = {
    "allowed_models": ["gpt-image-2"],
    "requests_per_minute": 60,
    "images_per_minute": 120,
    "max_jobs": 5,
    "budget_day_usd": "25.00",
    "budget_month_usd": 400.5,
}


async def _team(office: Office, name: str = "lab", **fields: Any) -> dict[str, Any]:
    made = await office.admin.post("/admin/v1/teams", json={"name": name, **fields})
    assert made.status_code == 201, made.text
    return dict(made.json())


async def _key(office: Office, team_id: str, **fields: Any) -> dict[str, Any]:
    made = await office.admin.post("/admin/v1/keys", json={"team_id": team_id, "name": "notebook", **fields})
    assert made.status_code == 201, made.text
    return dict(made.json())


def _error(response: httpx2.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


async def test_a_created_team_has_the_limits_that_were_given(office: Office) -> None:
    team = await _team(office, limits=LIMITS)
    assert (team["name"], team["limits"]) == ("lab", LIMITS)
    assert (await office.admin.get(f"/admin/v1/teams/{team['id']}")).json() == team


async def test_an_allowed_model_is_kept_under_its_own_name(office: Office) -> None:
    team = await _team(office, limits={"allowed_models": ["openai/gpt-image-2", "gpt-image-2"]})
    assert team["limits"] == {"allowed_models": ["gpt-image-2"]}


@pytest.mark.parametrize(
    "limits, param",
    [
        ({"allowed_models": ["gpt-image-9"]}, "limits.allowed_models"),
        ({"allowed_models": []}, "limits.allowed_models"),
        ({"allowed_models": "gpt-image-2"}, "limits.allowed_models"),
        ({"requests_per_minute": 0}, "limits.requests_per_minute"),
        ({"requests_per_minute": True}, "limits.requests_per_minute"),
        ({"images_per_minute": 1.5}, "limits.images_per_minute"),
        ({"max_jobs": "3"}, "limits.max_jobs"),
        ({"budget_day_usd": "-1"}, "limits.budget_day_usd"),
        ({"budget_day_usd": "NaN"}, "limits.budget_day_usd"),
        ({"budget_day_usd": "1e999999"}, "limits.budget_day_usd"),
        ({"budget_month_usd": "0.0000001"}, "limits.budget_month_usd"),
        ({"budget_month_usd": "ten"}, "limits.budget_month_usd"),
        ({"budget_year_usd": "10"}, "limits.budget_year_usd"),
    ],
)
async def test_a_limit_that_cannot_be_is_refused_by_name(
    office: Office, limits: dict[str, Any], param: str
) -> None:
    refused = await office.admin.post("/admin/v1/teams", json={"name": "lab", "limits": limits})
    status, _, named = _error(refused)
    assert (status, named) == (400, param)


async def test_a_team_name_is_given_once(office: Office) -> None:
    await _team(office)
    other = await _team(office, "studio")
    taken = await office.admin.post("/admin/v1/teams", json={"name": "lab"})
    renamed = await office.admin.patch(f"/admin/v1/teams/{other['id']}", json={"name": "lab"})
    assert _error(taken) == _error(renamed) == (400, "invalid_value", "name")


async def test_changed_limits_replace_lift_and_leave(office: Office) -> None:
    team = await _team(office, limits={"max_jobs": 3, "requests_per_minute": 10})
    changed = await office.admin.patch(
        f"/admin/v1/teams/{team['id']}",
        json={"limits": {"requests_per_minute": None, "budget_day_usd": "1"}},
    )
    assert changed.json()["limits"] == {"max_jobs": 3, "budget_day_usd": "1"}
    assert changed.json()["name"] == "lab"


async def test_a_key_is_shown_once_and_works(office: Office) -> None:
    team = await _team(office)
    made = await _key(office, team["id"], limits={"max_jobs": 2}, expires_at="2099-01-31T00:00:00Z")
    caller = await office.parts.accounts.authenticate(made["key"])
    assert (caller.team_id, caller.api_key_id) == (team["id"], made["id"])
    assert made["expires_at"] == int(datetime(2099, 1, 31, tzinfo=UTC).timestamp())
    shown = (await office.admin.get(f"/admin/v1/keys/{made['id']}")).json()
    assert shown == {name: value for name, value in made.items() if name != "key"}
    listed = await office.admin.get("/admin/v1/keys", params={"team_id": team["id"]})
    assert listed.json()["data"] == [shown]
    assert made["key"] not in listed.text


@pytest.mark.parametrize("value", ["tomorrow", "2027-02-31", "2027-01-31T00:00:00", True, -1, 1e300])
async def test_a_key_never_expires_at_a_moment_that_is_none(office: Office, value: Any) -> None:
    refused = await office.admin.post(
        "/admin/v1/keys", json={"team_id": "default", "name": "x", "expires_at": value}
    )
    assert _error(refused) == (400, "invalid_value", "expires_at")


async def test_a_key_of_no_team_is_not_made(office: Office) -> None:
    refused = await office.admin.post("/admin/v1/keys", json={"team_id": "team_none", "name": "x"})
    assert _error(refused) == (404, "not_found", "team_id")


async def test_a_rotated_key_works_beside_the_new_one_until_the_overlap_is_over(office: Office) -> None:
    old = await _key(office, "default", limits={"max_jobs": 2})
    rotated = await office.admin.post(f"/admin/v1/keys/{old['id']}/rotate", json={"overlap_s": 3600})
    assert rotated.status_code == 201
    new = rotated.json()
    assert new["key"] != old["key"]
    assert (new["name"], new["team_id"], new["limits"]) == (old["name"], old["team_id"], old["limits"])
    ends_at = datetime.fromtimestamp(new["replaces"]["expires_at"], UTC)
    assert abs(ends_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    accounts = office.parts.accounts
    assert (await accounts.authenticate(old["key"])).api_key_id == old["id"]
    assert (await accounts.authenticate(new["key"])).api_key_id == new["id"]


async def test_a_key_rotated_without_overlap_ends_at_once(office: Office) -> None:
    old = await _key(office, "default")
    await office.parts.accounts.authenticate(old["key"])
    rotated = await office.admin.post(f"/admin/v1/keys/{old['id']}/rotate", json={"overlap_s": 0})
    assert rotated.status_code == 201
    with pytest.raises(KeyExpired):
        await office.parts.accounts.authenticate(old["key"])


@pytest.mark.parametrize("overlap_s", [-1, 604_801, "1"])
async def test_an_overlap_is_at_most_a_week(office: Office, overlap_s: Any) -> None:
    old = await _key(office, "default")
    refused = await office.admin.post(f"/admin/v1/keys/{old['id']}/rotate", json={"overlap_s": overlap_s})
    assert _error(refused) == (400, "invalid_value", "overlap_s")


async def test_keys_that_are_over_and_keys_of_the_settings_are_not_rotated(office: Office) -> None:
    revoked = await _key(office, "default")
    await office.admin.delete(f"/admin/v1/keys/{revoked['id']}")
    bootstrap = (await office.parts.accounts.authenticate(API_KEY)).api_key_id
    for key_id in (revoked["id"], bootstrap):
        refused = await office.admin.post(f"/admin/v1/keys/{key_id}/rotate", json={})
        assert _error(refused) == (400, "invalid_value", "id")


async def test_a_rotated_key_makes_way_once_and_its_successor_outlives_the_overlap(office: Office) -> None:
    old = await _key(office, "default")
    new = (await office.admin.post(f"/admin/v1/keys/{old['id']}/rotate", json={"overlap_s": 60})).json()
    for query in ("", "?dry_run=true"):
        again = await office.admin.post(f"/admin/v1/keys/{old['id']}/rotate{query}", json={})
        assert _error(again) == (400, "invalid_value", "id")
        assert new["id"] in again.json()["error"]["message"]
    newest = await office.admin.post(f"/admin/v1/keys/{new['id']}/rotate", json={})
    assert (newest.status_code, newest.json()["expires_at"]) == (201, None)


async def test_a_rotated_key_goes_on_with_what_the_old_one_has_spent(office: Office) -> None:
    old = await _key(office, "default", limits={"budget_month_usd": "0.30"})
    path = "/v1/images/generations?async=true"
    wanted = {"model": "gpt-image-2", "prompt": "a boat", "quality": "high", "size": "1024x1024"}

    async def ask(key: str) -> httpx2.Response:
        return await office.anonymous.post(path, json=wanted, headers={"authorization": f"Bearer {key}"})

    assert (await ask(old["key"])).status_code == 202
    key = old
    for _ in range(2):
        key = (await office.admin.post(f"/admin/v1/keys/{key['id']}/rotate", json={})).json()
        refused = await ask(key["key"])
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")


async def test_an_overlap_doubles_no_rate(office: Office) -> None:
    old = await _key(office, "default", limits={"requests_per_minute": 2})
    new = (await office.admin.post(f"/admin/v1/keys/{old['id']}/rotate", json={})).json()
    wanted = {"model": "gpt-image-2", "prompt": "a boat", "quality": "low", "size": "1024x1024"}
    answers = [
        await office.anonymous.post(
            "/v1/images/generations?async=true",
            json=wanted,
            headers={"authorization": f"Bearer {key['key']}"},
        )
        for key in (old, new, old)
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 429]


async def test_a_budget_set_after_a_rotation_counts_what_the_old_key_has_spent(office: Office) -> None:
    old = await _key(office, "default")
    wanted = {"model": "gpt-image-2", "prompt": "a boat", "quality": "high", "size": "1024x1024"}
    made = await office.anonymous.post(
        "/v1/images/generations?async=true", json=wanted, headers={"authorization": f"Bearer {old['key']}"}
    )
    assert made.status_code == 202
    new = (await office.admin.post(f"/admin/v1/keys/{old['id']}/rotate", json={})).json()
    await office.admin.patch(f"/admin/v1/keys/{new['id']}", json={"limits": {"budget_month_usd": "0.30"}})
    refused = await office.anonymous.post(
        "/v1/images/generations?async=true", json=wanted, headers={"authorization": f"Bearer {new['key']}"}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")


async def test_a_revoked_key_is_refused_at_once_here(office: Office) -> None:
    made = await _key(office, "default")
    await office.parts.accounts.authenticate(made["key"])
    revoked = await office.admin.delete(f"/admin/v1/keys/{made['id']}")
    assert (revoked.status_code, revoked.json()["revoked_at"] is None) == (200, False)
    with pytest.raises(InvalidApiKey):
        await office.parts.accounts.authenticate(made["key"])


async def test_a_revoked_bootstrap_key_stays_revoked_at_the_next_start(office: Office) -> None:
    accounts = office.parts.accounts
    bootstrap = (await accounts.authenticate(API_KEY)).api_key_id
    await office.admin.delete(f"/admin/v1/keys/{bootstrap}")
    settings = office.parts.settings
    await accounts.bootstrap(settings.api_key.get_secret_value(), settings.admin_key.get_secret_value())
    with pytest.raises(InvalidApiKey):
        await accounts.authenticate(API_KEY)


async def test_lists_go_on_after_the_last_item(office: Office) -> None:
    made = [(await _team(office, f"team {number}"))["id"] for number in range(3)]
    first = (await office.admin.get("/admin/v1/teams", params={"limit": 2})).json()
    assert [team["id"] for team in first["data"]] == [made[2], made[1]]
    assert (first["object"], first["has_more"], first["last_id"]) == ("list", True, made[1])
    rest = (await office.admin.get("/admin/v1/teams", params={"after": first["last_id"]})).json()
    assert [team["id"] for team in rest["data"]] == [made[0], "default"]
    assert rest["has_more"] is False


async def test_a_keys_expiry_is_moved_and_lifted(office: Office) -> None:
    made = await _key(office, "default", expires_at="2099-01-31")
    assert made["expires_at"] == int(datetime(2099, 1, 31, tzinfo=UTC).timestamp())
    path = f"/admin/v1/keys/{made['id']}"
    kept = (await office.admin.patch(path, json={"name": "desk"})).json()
    assert (kept["name"], kept["expires_at"]) == ("desk", made["expires_at"])
    moved = (await office.admin.patch(path, json={"expires_at": "2098-01-31T00:00:00Z"})).json()
    assert moved["expires_at"] == int(datetime(2098, 1, 31, tzinfo=UTC).timestamp())
    lifted = (await office.admin.patch(path, json={"expires_at": None})).json()
    assert (lifted["name"], lifted["expires_at"]) == ("desk", None)
    (_, renamed, *_) = await office.audit()
    assert (renamed["action"], renamed["after"]["name"]) == ("key.changed", "desk")


async def test_no_key_is_made_to_have_expired(office: Office) -> None:
    made = await _key(office, "default")
    bodies = {"post": {"team_id": "default", "name": "x"}, "patch": {}}
    for method, path in (("post", "/admin/v1/keys"), ("patch", f"/admin/v1/keys/{made['id']}")):
        refused = await office.admin.request(
            method, path, json={**bodies[method], "expires_at": "2020-01-31"}
        )
        assert _error(refused) == (400, "invalid_value", "expires_at")
        assert "2020-01-31T00:00:00Z is past" in refused.json()["error"]["message"]


async def test_a_rotation_is_found_by_both_keys_and_tells_what_was(office: Office) -> None:
    old = await _key(office, "default")
    path = f"/admin/v1/keys/{old['id']}/rotate"
    dry = (await office.admin.post(f"{path}?dry_run=true", json={"overlap_s": 60})).json()
    assert (dry["expires_at"], dry["dry_run"]) == (None, True)
    assert abs(dry["would"]["expires_at"] - datetime.now(UTC).timestamp() - 60) < 30
    new = (await office.admin.post(path, json={"overlap_s": 60})).json()
    for key_id in (old["id"], new["id"]):
        page = (await office.admin.get("/admin/v1/audit", params={"object": key_id})).json()
        entry = page["data"][0]
        assert (entry["action"], entry["before"]["id"], entry["after"]["id"]) == (
            "key.rotated",
            old["id"],
            new["id"],
        )
        assert entry["before"]["expires_at"] is None


async def test_the_operators_own_key_is_changed_in_the_settings(office: Office) -> None:
    own = (await office.parts.accounts.authenticate(ADMIN_KEY)).api_key_id
    for query in ("", "?dry_run=true"):
        refused = await office.admin.delete(f"/admin/v1/keys/{own}{query}")
        assert _error(refused) == (400, "invalid_value", "id")
        assert "DARKROOM_ADMIN_KEY" in refused.json()["error"]["message"]
    assert (await office.admin.get("/admin/v1/teams")).status_code == 200
