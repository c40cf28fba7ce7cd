"""`/admin/v1/spend` and `/admin/v1/reconcile`: what was spent, and what vendors say that they charged."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.responses import Response

from app.admin.audit import Audit
from app.admin.parameters import CHECKED_ACT, check_order, query_moment, read_flag, refuse_rest
from app.admin.rendering import seconds
from app.admin.schemas import ADMIN_BEARER, DRY_RUN, MOMENT, answer
from app.api.bodies import parse_json_object, read_bytes
from app.api.parameters import Fields
from app.api.schemas import ERRORS, query
from app.domain.errors import InvalidValue, MissingParameter
from app.domain.money import usd
from app.kit.json import JsonObject
from app.ledger.errors import ExportUnreadable
from app.ledger.exports import Finding, read_csv, read_json
from app.ledger.service import Ledger, Reconciled
from app.ledger.spend import By, Group, Span, Spend, total

_EXPORT_BYTES: Final = 4_000_000
"""Of a usage export: 10 000 lines of a few hundred bytes."""
# Spreadsheets take a text that begins like this for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_FROM: Final = query("from", "The first moment: a date, ISO 8601 with its zone, or Unix seconds.", MOMENT)
_TO: Final = query(
    "to", "The first moment after it, or, as a date, its last day; now unless it is given.", MOMENT
)
_CSV: Final[dict[str, Any]] = {"text/csv": {"schema": {"type": "string"}}}
_BY: Final = {
    "type": "string",
    "pattern": f"^({'|'.join(By)})(,({'|'.join(By)}))*$",
    "example": "team,model",
}


class SpendGroup(BaseModel):
    """What a group of attempts came to. US dollars are decimal strings; null: no price is known."""

    attempts: int
    pictures: int
    certain_usd: str | None = Field(description="Reported by vendors, or from the price table.")
    estimated_usd: str | None = Field(description="The part of it that is from the price table.")
    possible_usd: str | None = Field(description="Calls whose outcome is unknown, at their whole hold.")
    pending_usd: str | None = Field(description="Held for calls that are under way.")
    unpriced_attempts: int = Field(description="Whose cost nobody knows; in none of the sums.")
    saved_usd: str | None = Field(description="What the pictures would have cost more at the dearest route.")


class SpendReport(BaseModel):
    """What was spent."""

    object: str = "spend"
    by: list[str]
    begins_at: int = Field(alias="from")
    ends_at: int = Field(alias="to")
    data: list[SpendGroup]
    total: SpendGroup


class ReconciledLine(BaseModel):
    """What one line of the export meant for the books."""

    name: str
    attempt_id: str | None
    finding: str = Field(description="corrected, unchanged, contradicted, open or unknown.")
    before_usd: str | None
    was: str | None
    after_usd: str


class Reconciliation(BaseModel):
    """What the import did, or would do."""

    object: str = "reconciliation"
    dry_run: bool
    findings: dict[str, int]
    changed_usd: str
    data: list[ReconciledLine] = Field(description="Every line but those that were booked so already.")


def router(ledger: Ledger, audit: Audit) -> APIRouter:
    """Build the endpoints."""
    routes = APIRouter(
        prefix="/admin/v1", tags=["spend"], dependencies=[ADMIN_BEARER, CHECKED_ACT], responses=ERRORS
    )

    @routes.get(
        "/spend",
        summary="Report what was spent",
        openapi_extra={
            "parameters": [
                query("by", f"Of {', '.join(By)}; several with commas, each once; `team` unless given.", _BY),
                _FROM,
                _TO,
                query("format", "Also chosen by `Accept: text/csv`.", {"type": "string", "enum": ["json", "csv"]}),
            ]
        },
        responses={
            200: {
                "model": SpendReport,
                "content": _CSV,
                "description": "What was spent on the calls opened in this span.",
            }
        },
    )  # fmt: skip
    async def spend(request: Request) -> Response:
        """Report what was spent; the first of this month until now, unless a span is given."""
        by = _by(request)
        now = datetime.now(UTC)
        span = _span(request, Span(begins_at=datetime(now.year, now.month, 1, tzinfo=UTC), ends_at=now))
        is_csv = _wants_csv(request)
        groups = await ledger.spend(by, span)
        if is_csv:
            name = f"spend-{span.begins_at:%Y-%m-%d}-{span.ends_at:%Y-%m-%d}.csv"
            headers = {"content-disposition": f'attachment; filename="{name}"'}
            return Response(_csv(by, groups), media_type="text/csv; charset=utf-8", headers=headers)
        return JSONResponse(
            {
                "object": "spend",
                "by": [item.value for item in by],
                "from": seconds(span.begins_at),
                "to": seconds(span.ends_at),
                "data": [_group_document(group) for group in groups],
                "total": _spend_document(total(groups)),
            }
        )

    @routes.post(
        "/reconcile",
        summary="Import what a vendor charged",
        openapi_extra={
            "parameters": [
                query("upstream", "Whose tickets these are.", {"type": "string"}),
                query("complete", "Calls of the span that are not in it cost nothing.", {"type": "boolean"}),
                _FROM,
                _TO,
                DRY_RUN,
            ],
            "requestBody": {
                "required": True,
                "content": {"text/csv": {"schema": {"type": "string"}}, "application/json": {"schema": _EXPORT}},
            },
        },
        responses=answer(Reconciliation, "What it did, or would do."),
    )  # fmt: skip
    async def reconcile(request: Request) -> Response:
        """Book what a vendor charged, where the books were not certain. Repeating an import changes nothing."""
        is_dry_run = read_flag(request, "dry_run")
        complete = _complete_span(request)
        upstream = request.query_params.get("upstream")
        content = await read_bytes(request, max_bytes=_EXPORT_BYTES)
        if request.headers.get("content-type", "").startswith("text/csv"):
            charges = read_csv(_text(content))
        else:
            fields = Fields(parse_json_object(content))
            given = fields.items("charges")
            refuse_rest(fields, "charges")
            charges = read_json(None if given is None else list(given))
        witness = audit.witness(
            request, "spend.reconciled", subject=lambda _: upstream or "ledger", render=_summary
        )
        lines = await ledger.reconcile(
            charges, upstream=upstream, complete=complete, is_dry_run=is_dry_run, witness=witness
        )
        return JSONResponse(_reconciliation(lines, is_dry_run=is_dry_run))

    return routes


_EXPORT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["charges"],
    "properties": {
        "charges": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["amount_usd"],
                "properties": {
                    "attempt_id": {"type": "string"},
                    "ticket": {"type": "string"},
                    "amount_usd": {"type": ["string", "number"]},
                },
            },
        }
    },
}


def _by(request: Request) -> list[By]:
    given = request.query_params.getlist("by") or [By.TEAM.value]
    names = [name.strip() for name in ",".join(given).split(",")]
    for name in names:
        if name not in {item.value for item in By} or names.count(name) > 1:
            choices = ", ".join(repr(item.value) for item in By)
            message = f"Invalid value: {name!r}. Spend is grouped by any of {choices}, each once."
            raise InvalidValue(message, param="by")
    return [By(name) for name in names]


def _span(request: Request, default: Span) -> Span:
    begins_at = query_moment(request, "from") or default.begins_at
    ends_at = query_moment(request, "to", is_end=True) or default.ends_at
    check_order(begins_at, ends_at)
    return Span(begins_at=begins_at, ends_at=ends_at)


def _complete_span(request: Request) -> Span | None:
    if not read_flag(request, "complete"):
        return None
    for name in ("from", "to"):
        if not request.query_params.get(name):
            message = f"Missing required parameter: {name!r}, since 'complete' is said of a span."
            raise MissingParameter(message, param=name)
    nothing = datetime.fromtimestamp(0, UTC)
    return _span(request, Span(begins_at=nothing, ends_at=nothing))


def _wants_csv(request: Request) -> bool:
    chosen = request.query_params.get("format")
    if chosen not in {None, "json", "csv"}:
        message = f"Invalid value: {chosen!r}. Supported values are: 'json' and 'csv'."
        raise InvalidValue(message, param="format")
    return chosen == "csv" or (chosen is None and "text/csv" in request.headers.get("accept", ""))


def _spend_document(spend: Spend) -> dict[str, Any]:
    def dollars(micros: int) -> str | None:
        return None if spend.is_unpriced else usd(micros)

    return {
        "attempts": spend.attempts,
        "pictures": spend.pictures,
        "certain_usd": dollars(spend.certain_micros),
        "estimated_usd": dollars(spend.estimated_micros),
        "possible_usd": dollars(spend.possible_micros),
        "pending_usd": dollars(spend.pending_micros),
        "unpriced_attempts": spend.unpriced_attempts,
        "saved_usd": dollars(spend.saved_micros),
    }


def _group_document(group: Group) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for item, value in group.keys.items():
        document[item.value] = value
        if item is By.TEAM:
            document["team_name"] = group.team_name
        if item is By.KEY:
            document["key_name"] = group.key_name
    return {**document, **_spend_document(group.spend)}


def _csv(by: list[By], groups: list[Group]) -> str:
    names = list(_group_document(Group(keys=dict.fromkeys(by, ""), team_name="", key_name="", spend=Spend())))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\r\n")
    writer.writeheader()
    for group in groups:
        writer.writerow({name: _cell(value) for name, value in _group_document(group).items()})
    return text.getvalue()


def _cell(value: object) -> object:
    is_formula = isinstance(value, str) and value.startswith(_FORMULA) and not _is_number(value)
    return f"'{value}" if is_formula else value


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text) is not None


def _reconciliation(lines: Sequence[Reconciled], *, is_dry_run: bool) -> dict[str, Any]:
    corrected = [line for line in lines if line.finding is Finding.CORRECTED]
    changed_micros = sum(line.after_micros - (line.before_micros or 0) for line in corrected)
    findings = Counter(line.finding.value for line in lines)
    return {
        "object": "reconciliation",
        "dry_run": is_dry_run,
        "findings": {item.value: findings[item.value] for item in Finding},
        "changed_usd": usd(changed_micros),
        "data": [_line_document(line) for line in lines if line.finding is not Finding.UNCHANGED],
    }


def _summary(lines: Sequence[Reconciled]) -> JsonObject:
    """What the audit log keeps of one transaction's lines: each correction, and how the others were judged."""
    document = _reconciliation(lines, is_dry_run=False)
    corrected = [_line_document(line) for line in lines if line.finding is Finding.CORRECTED]
    return {"findings": document["findings"], "changed_usd": document["changed_usd"], "corrected": corrected}


def _line_document(line: Reconciled) -> dict[str, Any]:
    return {
        "name": line.name,
        "attempt_id": line.attempt_id,
        "finding": line.finding.value,
        "before_usd": None if line.before_micros is None else usd(line.before_micros),
        "was": None if line.was is None else line.was.value,
        "after_usd": usd(line.after_micros),
    }


def _text(content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ExportUnreadable("The export is not in UTF-8.", param="body") from exc
    if "\x00" in text:
        raise ExportUnreadable("The export holds a null character.", param="body")
    return text
