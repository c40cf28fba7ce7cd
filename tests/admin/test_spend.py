"""What operators read about spend, and what they import of vendors' bills."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.db.tables.attempts import attempts
from app.db.tables.budgets import budgets
from app.db.tables.ledger_entries import ledger_entries
from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.money import Certainty
from app.jobs.integrity import check_integrity
from app.jobs.openings import NewAttempt
from app.jobs.records import Attempt
from app.kit.ids import new_id
from tests.admin.conftest import Office
from tests.docs.pages import DOCS, blocks
from tests.jobs.conftest import NO_LIMITS, Store
from tests.ledger.conftest import a_picture

TIMED_OUT = UpstreamFailure(FailureKind.TIMED_OUT, "no answer")
SPEND = "/admin/v1/spend"
RECONCILE = "/admin/v1/reconcile"


class Shop:
    """Buys and loses pictures without a vendor."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.store = Store(office.parts.database)

    async def begin(self, *, upstream: str = "openai", quality: str = "low", n: int = 1) -> Attempt:
        body = {"model": "gpt-image-2", "prompt": "a boat", "n": n, "quality": quality, "size": "1024x1024"}
        made = await self.office.team.post("/v1/images/generations?async=true", json=body)
        assert made.status_code == 202, made.text
        job = await self.store.claim()
        planned = [NewAttempt(id=new_id("att"), upstream=upstream, target={"model": "m"}, pictures=n)]
        (attempt,) = await self.store.moves.open_attempts(
            job.id, job.lease_token, planned, round_number=1, limits=NO_LIMITS, timeout_s=330.0
        )
        return attempt

    async def buy(
        self,
        cost_micros: int,
        *,
        certainty: Certainty = Certainty.ACTUAL,
        dearest_micros: int | None = None,
        **fields: Any,
    ) -> Attempt:
        attempt = await self.begin(**fields)
        await self.store.moves.succeed(
            attempt,
            [a_picture() for _ in range(attempt.pictures)],
            usage=None,
            resolved={"quality": None},
            cost_micros=cost_micros,
            certainty=certainty,
            max_rounds=1,
            dearest_micros=dearest_micros,
        )
        return attempt

    async def lose(self, *, ticket: str | None = None, **fields: Any) -> Attempt:
        """An attempt that may have been paid for, booked at its hold of 6000 micro-dollars a picture."""
        attempt = await self.begin(**fields)
        if ticket is not None:
            await self.store.moves.accept(attempt, ticket)
        await self.store.moves.lose_track(attempt, TIMED_OUT)
        return attempt

    async def report(self, **params: str) -> dict[str, Any]:
        answer = await self.office.admin.get(SPEND, params=params)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def reconcile(self, charges: list[dict[str, Any]], **params: str) -> dict[str, Any]:
        answer = await self.office.admin.post(RECONCILE, params=params, json={"charges": charges})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def cost(self, attempt: Attempt) -> tuple[int, str]:
        async with self.office.parts.database.reading() as connection:
            query = select(attempts.c.cost_micros, attempts.c.certainty).where(attempts.c.id == attempt.id)
            row = (await connection.execute(query)).one()
            assert await check_integrity(connection) == []
        return row.cost_micros, row.certainty


@pytest.fixture
def shop(office: Office) -> Shop:
    return Shop(office)


async def test_spend_is_added_up_by_what_is_asked_for(shop: Shop) -> None:
    await shop.buy(1_000, n=2)
    await shop.buy(2_000, quality="high")
    await shop.buy(4_000, upstream="therouter")
    report = await shop.report(by="upstream,quality,team,key,model,day")
    spent = {(line["upstream"], line["quality"]): line["certain_usd"] for line in report["data"]}
    assert spent == {("openai", "high"): "0.002", ("openai", "low"): "0.001", ("therouter", "low"): "0.004"}
    assert {(line["team"], line["team_name"], line["model"]) for line in report["data"]} == {
        ("default", "default", "gpt-image-2")
    }
    assert {line["key_name"] for line in report["data"]} == {"bootstrap"}
    assert (report["total"]["certain_usd"], report["total"]["pictures"]) == ("0.007", 4)
    assert (await shop.report())["data"][0]["certain_usd"] == "0.007"


async def test_money_of_different_certainty_is_never_added_together(shop: Shop) -> None:
    await shop.buy(1_000)
    await shop.buy(2_000, certainty=Certainty.ESTIMATED)
    await shop.lose()
    await shop.begin(n=2)
    total = (await shop.report())["total"]
    assert (total["certain_usd"], total["estimated_usd"]) == ("0.003", "0.002")
    assert (total["possible_usd"], total["pending_usd"]) == ("0.006", "0.012")
    assert (total["attempts"], total["pictures"]) == (4, 2)


async def test_what_has_no_price_is_counted_and_is_not_free(shop: Shop) -> None:
    await shop.buy(0, certainty=Certainty.UNPRICED, upstream="mystery")
    await shop.buy(1_000)
    mystery, openai = sorted((await shop.report(by="upstream"))["data"], key=lambda line: line["upstream"])
    assert (mystery["certain_usd"], mystery["unpriced_attempts"], mystery["pictures"]) == (None, 1, 1)
    assert (openai["certain_usd"], openai["unpriced_attempts"]) == ("0.001", 0)


async def test_savings_are_what_the_dearest_route_would_have_cost_more(shop: Shop) -> None:
    await shop.buy(1_000, dearest_micros=5_000)
    await shop.buy(3_000)
    await shop.lose()
    assert (await shop.report())["total"]["saved_usd"] == "0.004"


async def test_a_date_at_the_end_is_the_last_day_that_belongs(shop: Shop) -> None:
    await shop.buy(1_000)
    today = datetime.now(UTC).date()
    tomorrow = today + timedelta(days=1)
    day = await shop.report(**{"from": f"{today}", "to": f"{today}"})
    assert (day["total"]["attempts"], day["to"] - day["from"]) == (1, 86_400)
    before = await shop.report(**{"from": "2020-01-01", "to": f"{today}T00:00:00Z"})
    assert before["total"]["attempts"] == 0
    assert (await shop.report(**{"from": f"{tomorrow}", "to": f"{tomorrow}"}))["data"] == []
    absent = await shop.report(**{"from": "", "to": ""})
    assert absent["total"]["attempts"] == 1
    moment = await shop.office.admin.get(SPEND, params={"from": "1700000000", "to": "1700000000"})
    assert (moment.status_code, moment.json()["error"]["param"]) == (400, "to")
    assert (await shop.office.admin.get(SPEND, params={"to": "9999-12-31"})).status_code == 400


async def test_what_it_is_grouped_by_may_be_repeated(shop: Shop) -> None:
    await shop.buy(1_000)
    answer = await shop.office.admin.get(f"{SPEND}?by=team&by=upstream")
    assert answer.json()["by"] == ["team", "upstream"]
    assert (await shop.office.admin.get(f"{SPEND}?by=team&by=team")).status_code == 400


async def test_a_span_is_half_open_and_takes_dates_moments_and_unix_seconds(shop: Shop) -> None:
    await shop.buy(1_000)
    assert (await shop.report(**{"from": "2020-01-01"}))["total"]["attempts"] == 1
    assert (await shop.report(**{"from": "2020-01-01", "to": "2020-02-01"}))["data"] == []
    assert (await shop.report(**{"from": "0", "to": "2099-01-01T00:00:00+02:00"}))["total"]["attempts"] == 1
    early = await shop.office.admin.get(SPEND, params={"from": "2027-02-01", "to": "2027-01-01"})
    assert (early.status_code, early.json()["error"]["param"]) == (400, "to")


@pytest.mark.parametrize(
    "params, param",
    [
        ({"by": "colour"}, "by"),
        ({"by": "day,day"}, "by"),
        ({"from": "yesterday"}, "from"),
        ({"format": "xml"}, "format"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    shop: Shop, params: dict[str, str], param: str
) -> None:
    refused = await shop.office.admin.get(SPEND, params=params)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_a_report_is_a_table_for_spreadsheets_too(shop: Shop) -> None:
    await shop.office.parts.accounts.change_team("default", name="=cmd()")
    await shop.buy(1_000)
    by_format = await shop.office.admin.get(SPEND, params={"by": "team", "format": "csv"})
    by_header = await shop.office.admin.get(SPEND, params={"by": "team"}, headers={"accept": "text/csv"})
    assert by_format.headers["content-type"] == "text/csv; charset=utf-8"
    assert by_format.text == by_header.text
    (line,) = csv.DictReader(io.StringIO(by_format.text))
    assert (line["team"], line["team_name"], line["certain_usd"]) == ("default", "'=cmd()", "0.001")


async def test_a_report_makes_the_same_number_of_queries_however_much_there_is(shop: Shop) -> None:
    async def queries() -> int:
        counted: list[str] = []
        with shop.office.parts.database.observed(lambda statement, _values: counted.append(statement)):
            await shop.report(by="team,key,model,upstream,quality,day")
        return len(counted)

    await queries()
    before = await queries()
    for number in range(4):
        await shop.buy(1_000, upstream=f"vendor-{number}")
    assert await queries() == before


async def test_an_export_makes_possible_cost_certain_once(shop: Shop) -> None:
    await shop.office.parts.accounts.change_team("default", limits={"budget_month_usd": "10"})
    paid, unpaid = await shop.lose(), await shop.lose(ticket="order-7")
    charges: list[dict[str, Any]] = [
        {"attempt_id": paid.id, "amount_usd": "0.0042"},
        {"ticket": "order-7", "amount_usd": 0},
    ]
    tried = await shop.reconcile(charges, upstream="openai", dry_run="true")
    assert (tried["findings"]["corrected"], tried["changed_usd"]) == (2, "-0.0078")
    assert await shop.cost(paid) == (6_000, "possible")
    done = await shop.reconcile(charges, upstream="openai")
    assert {**done, "dry_run": True} == tried
    assert (await shop.cost(paid), await shop.cost(unpaid)) == ((4_200, "actual"), (0, "actual"))
    again = await shop.reconcile(charges, upstream="openai")
    assert (again["findings"]["unchanged"], again["data"], again["changed_usd"]) == (2, [], "0")
    async with shop.office.parts.database.reading() as connection:
        entries = (await connection.execute(select(ledger_entries))).all()
        (budget,) = (await connection.execute(select(budgets))).all()
    assert sorted((item.reason, item.amount_micros) for item in entries) == [
        ("reconciled", -6_000),
        ("reconciled", -1_800),
    ]
    assert (budget.reserved_micros, budget.spent_micros) == (0, 4_200)
    assert (await shop.report())["total"]["possible_usd"] == "0"
    told = [item for item in await shop.office.audit() if item["action"] == "spend.reconciled"]
    assert [item["object"] for item in told] == ["openai", "openai"]
    first, second = (item["after"] for item in told)
    assert (first["changed_usd"], first["findings"]["corrected"]) == ("-0.0078", 2)
    booked = {item["attempt_id"]: (item["before_usd"], item["after_usd"]) for item in first["corrected"]}
    assert booked == {paid.id: ("0.006", "0.0042"), unpaid.id: ("0.006", "0")}
    assert (second["corrected"], second["findings"]["unchanged"]) == ([], 2)


async def test_an_export_is_read_as_a_table_too(shop: Shop) -> None:
    lost = await shop.lose()
    table = f"\ufeffattempt_id,model,amount_usd\r\n{lost.id},gpt-image-2,0.001\r\n"
    answer = await shop.office.admin.post(
        RECONCILE, content=table.encode(), headers={"content-type": "text/csv"}
    )
    assert answer.json()["findings"]["corrected"] == 1
    assert await shop.cost(lost) == (1_000, "actual")


async def test_what_the_books_cannot_take_is_shown_and_left_alone(shop: Shop) -> None:
    sure = await shop.buy(1_000)
    running = await shop.begin()
    charges = [
        {"attempt_id": sure.id, "amount_usd": "0.5"},
        {"attempt_id": running.id, "amount_usd": "0.5"},
        {"attempt_id": "att_nobody", "amount_usd": "0.5"},
    ]
    done = await shop.reconcile(charges)
    assert [line["finding"] for line in done["data"]] == ["contradicted", "open", "unknown"]
    assert await shop.cost(sure) == (1_000, "actual")


async def test_what_a_complete_export_leaves_out_was_not_charged(shop: Shop) -> None:
    named, unnamed, elsewhere = await shop.lose(), await shop.lose(), await shop.lose(upstream="therouter")
    span = {"from": "2020-01-01", "to": "2099-01-01", "complete": "true"}
    charges = [{"attempt_id": named.id, "amount_usd": "0.006"}]
    done = await shop.reconcile(charges, upstream="openai", **span)
    assert done["findings"]["corrected"] == 2
    assert await shop.cost(unnamed) == (0, "actual")
    assert await shop.cost(named) == (6_000, "actual")
    assert await shop.cost(elsewhere) == (6_000, "possible")


@pytest.mark.parametrize(
    "charges, param",
    [
        ([{"amount_usd": "1"}], "body"),
        ([{"attempt_id": "att_1", "amount_usd": "-1"}], "body"),
        ([{"attempt_id": "att_1", "amount_usd": "NaN"}], "body"),
        ([{"attempt_id": "att_1"}], "body"),
        ([{"attempt_id": "att_1", "amount_usd": True}], "body"),
        ([{"attempt_id": "att_1", "amount_usd": 1}, {"attempt_id": "att_1", "amount_usd": 2}], "body"),
        ([{"ticket": "order-7", "amount_usd": 1}], "upstream"),
        ("att_1", "charges"),
        (None, "charges"),
    ],
)
async def test_an_export_that_cannot_be_read_changes_nothing(shop: Shop, charges: Any, param: str) -> None:
    refused = await shop.office.admin.post(RECONCILE, json={"charges": charges})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_a_body_with_anything_else_is_no_export(shop: Shop) -> None:
    refused = await shop.office.admin.post(RECONCILE, json={"charges": [], "dry_run": True})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "unknown_parameter", "dry_run")


async def test_a_long_import_is_booked_in_parts_each_told_with_what_it_changed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ledger.service.BATCH", 2)
    lost = [await shop.lose() for _ in range(3)]
    charges: list[dict[str, Any]] = [{"attempt_id": item.id, "amount_usd": "0.001"} for item in lost]
    done = await shop.reconcile([*charges, {"attempt_id": "att_nobody", "amount_usd": "1"}])
    assert (done["findings"]["corrected"], done["findings"]["unknown"]) == (3, 1)
    assert [line["name"] for line in done["data"]] == [*(item.id for item in lost), "att_nobody"]
    first, last = ((item["after"]) for item in await shop.office.audit())
    assert (len(first["corrected"]), len(last["corrected"])) == (2, 1)
    assert (first["findings"]["unknown"], last["findings"]["unknown"]) == (0, 1)
    for item in lost:
        assert await shop.cost(item) == (1_000, "actual")


async def test_only_operators_who_may_change_things_import(shop: Shop) -> None:
    assert (await shop.office.reader.get(SPEND)).status_code == 200
    assert (await shop.office.reader.post(RECONCILE, json={"charges": []})).status_code == 403
    assert (await shop.office.team.get(SPEND)).status_code == 403


async def test_the_example_of_a_report_is_what_these_calls_come_to(shop: Shop) -> None:
    question, answer, refusal = (block.text for block in blocks(DOCS / "money.md"))
    await shop.buy(12_000, n=2, dearest_micros=14_000)
    await shop.buy(7_000, upstream="therouter", certainty=Certainty.ESTIMATED, dearest_micros=7_000)
    await shop.lose()
    asked = re.search(r"/admin/v1/spend\?[^\s']+", question)
    assert asked is not None
    assert (await shop.office.admin.get(asked[0])).json() == json.loads(answer)
    await shop.office.parts.accounts.change_team("default", limits={"budget_month_usd": "0.03"})
    body = {"model": "gpt-image-2", "prompt": "a boat", "quality": "low", "size": "1024x1024"}
    refused = await shop.office.team.post("/v1/images/generations", json=body)
    told = refused.json()["error"]
    period = re.compile(r"\d{4}-\d\d(-\d\dT00:00:00Z)?")
    assert told == {**json.loads(refusal)["error"], "message": told["message"]}
    shown = json.loads(refusal)["error"]["message"]
    assert period.sub("MONTH", told["message"]) == period.sub("MONTH", shown)
