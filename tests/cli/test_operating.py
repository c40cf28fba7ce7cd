"""The commands of operators, against the admin API itself. `docs/operations.md` tells the whole story."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.cli.command import Ended, darkroom
from tests.house import House, opener
from tests.kitchen import ADMIN_KEY, API_KEY
from tests.simulators.openai import OpenAi


class Operator:
    """Somebody with an admin key, in front of the gateway."""

    def __init__(self, house: House) -> None:
        self.house = house

    async def types(self, *arguments: str, api_key: str = ADMIN_KEY) -> Ended:
        """Run a command of theirs that works."""
        ended = await self.tries(*arguments, api_key=api_key)
        assert ended.code == 0, ended.err
        return ended

    async def tries(self, *arguments: str, api_key: str = ADMIN_KEY) -> Ended:
        """Run a command of theirs."""
        at = ("--base-url", self.house.address, "--api-key", api_key)
        return await asyncio.to_thread(darkroom, *arguments, *at)

    async def has_made(self, prompt: str = "a boat") -> Ended:
        """Have a picture made as a client."""
        order = ("generate", prompt, "--quality", "low", "--size", "1024x1024", "-o", "boat.png")
        return await self.tries(*order, api_key=API_KEY)


@pytest.fixture
async def operator(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str
) -> AsyncIterator[Operator]:
    """An operator of a gateway that works, with one vendor."""
    house = opener(monkeypatch, tmp_path, sqlite_url)
    # The command runs in this process, and prints where logs would be printed.
    with capture_logs():
        async with OpenAi(api_key="sk-canary-0123456789") as vendor, house(vendor) as running:
            yield Operator(running)


async def test_limits_are_set_changed_and_lifted(operator: Operator) -> None:
    limits = ("--limit", "budget_month_usd=2.50", "--limit", "allowed_models=gpt-image-2")
    await operator.types("teams", "create", "design", *limits)
    shown = await operator.types("teams", "show", "design")
    assert "limits   budget_month_usd=2.50 allowed_models=gpt-image-2\n" in shown.out

    changes = ("--limit", "budget_month_usd=none", "--limit", "max_jobs=3")
    changed = await operator.types("teams", "update", "design", "--name", "print", *changes, "--json")
    assert (changed.json["name"], changed.json["limits"]) == (
        "print",
        {"allowed_models": ["gpt-image-2"], "max_jobs": 3},
    )
    key = await operator.types(
        "keys", "create", "ci", "--team", "print", "--limit", "max_jobs=1", "--role", "team", "--json"
    )
    assert key.json["limits"] == {"max_jobs": 1}
    updated = await operator.types("keys", "update", key.json["id"], "--limit", "max_jobs=none")
    assert updated.out == f"The key {key.json['id']} (ci) has the limits: none.\n"


@pytest.mark.parametrize(
    "given, said",
    [
        (["--limit", "max_jobs"], "Write NAME=VALUE"),
        (["--limit", "max_job=3"], "Unknown parameter: 'limits.max_job'"),
        (["--limit", "max_jobs=many"], "expected an integer"),
        ([], "nothing to change"),
    ],
)
async def test_a_limit_that_is_none_is_refused(operator: Operator, given: list[str], said: str) -> None:
    ended = await operator.tries("teams", "update", "default", *given)

    assert ended.code == 2
    assert said in ended.err


async def test_a_rotated_key_works_beside_its_successor_until_it_is_revoked(operator: Operator) -> None:
    old = (await operator.types("keys", "create", "ci", "--team", "default", "--json")).json
    rotated = await operator.types("keys", "rotate", old["id"], "--overlap-s", "3600")
    new = rotated.out.strip()
    assert f"The old one, {old['id']}, works until 20" in rotated.err
    for text in (old["key"], new):
        await operator.types("jobs", "list", api_key=text)

    await operator.types("keys", "revoke", old["id"])
    assert (await operator.tries("jobs", "list", api_key=old["key"])).code == 4
    await operator.types("jobs", "list", api_key=new)
    listed = (await operator.types("keys", "list")).out
    assert f"{old['id']}  ci" in listed
    assert "revoked 20" in listed


async def test_a_job_of_any_team_is_seen_with_what_the_vendor_said_and_made_again(operator: Operator) -> None:
    assert (await operator.has_made("a boat [[openai@invalid_value]]")).code == 1
    listed = await operator.types("jobs", "list", "--team", "default", "--upstream", "openai", "--json")
    (job,) = listed.json
    shown = await operator.types("jobs", "show", job["id"], "--admin")
    assert job["attempts"][0]["id"] in shown.out
    assert "HTTP 400" in shown.out

    requeued = await operator.types("jobs", "requeue", job["id"])
    assert requeued.out.endswith(f" makes the request of {job['id']} again.\n")
    newest, _ = (await operator.types("jobs", "list", "--admin", "--json")).json
    assert newest["requeued_from"] == job["id"]
    final = await operator.tries("jobs", "cancel", job["id"], "--admin")
    assert (final.code, "job_not_cancellable" in final.err) == (1, True)


async def test_a_job_that_is_not_waited_for_is_an_id(operator: Operator) -> None:
    job_id = (await operator.types("generate", "a boat", "--async", api_key=API_KEY)).out.strip()

    watched = await operator.types("jobs", "watch", job_id, "-o", "boat.png", api_key=API_KEY)

    assert watched.out.startswith("Saved boat.png\n")


async def test_an_upstream_is_drained_and_reset(operator: Operator) -> None:
    drained = await operator.types("upstreams", "drain", "openai")
    assert drained.out == "The upstream openai is draining. No call is in flight.\n"
    assert "openai    draining" in (await operator.types("upstreams", "list")).out
    # To forget failures is not to ask again.
    assert (await operator.types("upstreams", "reset", "openai")).out == "The upstream openai is reset.\n"
    assert "openai    draining" in (await operator.types("upstreams", "list")).out
    await operator.types("upstreams", "enable", "openai")
    assert "openai    ready" in (await operator.types("upstreams", "list")).out


async def test_spend_is_reported_and_a_bill_imported(operator: Operator, folder: Path) -> None:
    assert (await operator.has_made("a boat [[openai@html]]")).code == 1
    heading, *rows, total = (
        await operator.types("spend", "--by", "team,upstream", "--from", "2026-01-01")
    ).out.splitlines()
    assert heading.split()[:4] == ["team", "upstream", "calls", "pictures"]
    assert [row.split()[:3] for row in rows] == [["default", "openai", "1"]]
    assert total.split() == ["total", "1", "0", "0", "0", "0.006", "0", "0", "0"]
    table = (await operator.types("spend", "--by", "upstream", "--csv")).out
    assert table.splitlines()[1] == "openai,1,0,0,0,0.006,0,0,0"

    (job,) = (await operator.types("jobs", "list", "--admin", "--json")).json
    attempt_id = job["attempts"][0]["id"]
    (folder / "bill.csv").write_text(f"attempt_id,amount_usd\n{attempt_id},0.005\n")
    (folder / "bill.json").write_text(
        json.dumps({"charges": [{"attempt_id": attempt_id, "amount_usd": "0.005"}]})
    )
    told = await operator.types("reconcile", "bill.csv", "--dry-run")
    assert told.out.endswith("1 corrected: the books would change by -0.001 USD.\n")
    done = await operator.types("reconcile", "bill.csv")
    assert done.out.splitlines()[1].split() == [attempt_id, "corrected", "0.006", "possible", "0.005"]
    again = await operator.types("reconcile", "bill.json")
    assert again.out == "1 unchanged: the books changed by 0 USD.\n"
    report = (await operator.types("spend", "--json")).json
    assert (report["total"]["certain_usd"], report["total"]["possible_usd"]) == ("0.005", "0")


async def test_a_delivery_is_listed_and_sent_again(operator: Operator) -> None:
    url = "http://127.0.0.1:9/pictures"
    created = await operator.types("webhooks", "create", url, "--team", "default", "--event", "job.succeeded")
    assert created.out.startswith("whsec_")
    second = await operator.types("webhooks", "create", f"{url}/2", "--team", "default")
    assert (second.out, "has its secret already" in second.err) == ("", True)
    assert [row.split()[2:4] for row in (await operator.types("webhooks", "list")).out.splitlines()[1:]] == [
        [f"{url}/2", "enabled"],
        [url, "enabled"],
    ]

    assert (await operator.has_made()).code == 0
    listed = (await operator.types("webhooks", "deliveries", "--team", "default", "--json")).json
    assert {delivery["url"] for delivery in listed} == {url, f"{url}/2"}
    resent = await operator.types("webhooks", "resend", listed[0]["id"])
    assert resent.out.endswith(f" sends job.succeeded of {listed[0]['job_id']} again.\n")
    table = (await operator.types("webhooks", "deliveries", "--job", listed[0]["job_id"])).out
    assert len(table.splitlines()) == 4
    assert (await operator.tries("webhooks", "resend", "dlv_nowhere")).code == 1


async def test_maintenance_turns_new_jobs_away(operator: Operator) -> None:
    began = await operator.types("maintenance", "on")
    assert began.out.startswith("Maintenance is on since 20")
    refused = await operator.has_made()
    assert (refused.code, "shutting_down" in refused.err) == (1, True)
    assert (await operator.types("maintenance", "show", "--json")).json["drain"] is True

    ended = await operator.types("maintenance", "off")
    assert ended.out == "Maintenance is off: new jobs are taken in. 0 in progress, 0 queued.\n"
    assert (await operator.has_made()).code == 0


async def test_the_catalog_is_loaded_again_or_refused(operator: Operator) -> None:
    path = operator.house.settings.config
    good = path.read_text()
    reloaded = await operator.types("config", "reload")
    assert reloaded.out.endswith(" is in force in every process.\n")

    path.write_text(good.replace("max_concurrency: 50", "max_concurrency: fifty"))
    refused = await operator.tries("config", "reload")
    assert refused.code == 2
    assert "upstreams.openai.max_concurrency" in refused.err


async def test_the_audit_log_tells_who_did_what(operator: Operator) -> None:
    await operator.types("upstreams", "disable", "openai")
    await operator.types("maintenance", "on")

    heading, first, second = (await operator.types("audit")).out.splitlines()
    assert heading.split() == ["at", "by", "action", "object"]
    assert first.split()[3:] == ["bootstrap_admin", "maintenance.began", "maintenance"]
    assert second.split()[3:] == ["bootstrap_admin", "upstream.disabled", "openai"]
    (entry,) = (await operator.types("audit", "--object", "openai", "--json")).json
    assert entry["action"] == "upstream.disabled"
