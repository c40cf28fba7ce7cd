"""What a simulated vendor received, made and billed: the other side of the gateway's books."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

_KEPT_CALLS: Final = 100_000
_KEPT_HEADERS: Final = (
    "accept-encoding", "connection", "content-type", "idempotency-key", "user-agent", "x-request-id",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Call:
    """One request as it came in."""

    number: int
    at: datetime
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any = None
    """The parsed JSON, or a form's fields with an `Upload` for each file; None when there was none."""
    occasion: str | None = None
    """`purchase`, `poll` or `file`; None for everything else."""
    step: str = "ok"
    """The scripted step that was played."""
    charged: bool = False

    @property
    def attempt_id(self) -> str:
        """What the gateway calls this attempt: its `Idempotency-Key`, else empty."""
        return self.headers.get("idempotency-key", "")

    def as_json(self) -> dict[str, Any]:
        """Write it without credentials, prompts or pictures."""
        return {
            "number": self.number,
            "at": self.at.isoformat(),
            "method": self.method,
            "path": self.path,
            "query": dict(self.query),
            "headers": {name: self.headers[name] for name in _KEPT_HEADERS if name in self.headers},
            "occasion": self.occasion,
            "attempt_id": self.attempt_id,
            "step": self.step,
            "charged": self.charged,
        }


@dataclass(slots=True, kw_only=True)
class Account:
    """What was received, made and billed under one attempt id, or in total."""

    posts: int = 0
    """Paid POSTs received, refused ones included."""
    pictures: int = 0
    """Pictures made, delivered or not."""
    charges: int = 0
    """How many times the vendor would bill."""
    cost_usd: Decimal = Decimal(0)

    def as_json(self) -> dict[str, Any]:
        """Write it, the amount as a decimal string."""
        return {
            "posts": self.posts,
            "pictures": self.pictures,
            "charges": self.charges,
            "cost_usd": format(self.cost_usd, "f"),
        }


@dataclass(slots=True)
class Ledger:
    """Everything that happened since the start or the last reset."""

    total: Account = field(default_factory=Account)
    attempts: dict[str, Account] = field(default_factory=dict)
    """By attempt id; calls without one are under the empty string."""
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=_KEPT_CALLS))
    """Oldest first; the control API is not recorded."""
    in_flight: int = 0
    """Paid POSTs received and not answered yet."""
    peak_in_flight: int = 0
    _numbered: int = 0

    @property
    def posts(self) -> int:
        """Paid POSTs received, refused ones included."""
        return self.total.posts

    @property
    def pictures(self) -> int:
        """Pictures made, delivered or not."""
        return self.total.pictures

    @property
    def charges(self) -> int:
        """How many times the vendor would bill."""
        return self.total.charges

    @property
    def cost_usd(self) -> Decimal:
        """What the vendor would bill in all."""
        return self.total.cost_usd

    def on(self, occasion: str) -> list[Call]:
        """The calls of one occasion, oldest first."""
        return [call for call in self.calls if call.occasion == occasion]

    def record(
        self,
        *,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        occasion: str | None,
    ) -> Call:
        """Write a request down as received."""
        self._numbered += 1
        call = Call(
            number=self._numbered,
            at=datetime.now(UTC),
            method=method,
            path=path,
            query=query,
            headers=headers,
            occasion=occasion,
        )
        self.calls.append(call)
        if occasion == "purchase":
            for account in (self.total, self._of(call)):
                account.posts += 1
        return call

    def bill(self, call: Call, *, pictures: int, cost_usd: Decimal) -> None:
        """Charge a call for pictures made."""
        call.charged = True
        for account in (self.total, self._of(call)):
            account.charges += 1
            account.pictures += pictures
            account.cost_usd += cost_usd

    def has_charged(self, attempt_id: str) -> bool:
        """Whether this attempt has been billed."""
        return attempt_id in self.attempts and self.attempts[attempt_id].charges > 0

    def as_json(self, *, calls: bool) -> dict[str, Any]:
        """Write the accounts, and the calls if asked."""
        written: dict[str, Any] = self.total.as_json()
        written["in_flight"] = self.in_flight
        written["peak_in_flight"] = self.peak_in_flight
        written["attempts"] = {attempt: account.as_json() for attempt, account in self.attempts.items()}
        if calls:
            written["calls"] = [call.as_json() for call in self.calls]
        return written

    def _of(self, call: Call) -> Account:
        return self.attempts.setdefault(call.attempt_id, Account())
