"""What happened in a fault run, and the checker that judges it, in the words of Jepsen's queue checker.

Three sides are compared: what clients were told, what the database holds, and what the vendors were asked and billed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

AFTER_DEADLINE: Final = timedelta(seconds=60)
"""How long after its deadline a job may still become final; the promise of docs/reliability.md."""
FINAL: Final = frozenset({"succeeded", "failed", "cancelled", "expired"})

Style: TypeAlias = Literal["keyed", "plain", "sdk"]
"""Sent with an Idempotency-Key and repeated at will; sent once without; sent by a stock SDK with its own retries."""


@dataclass(slots=True, kw_only=True)
class Order:
    """Pictures that a client wants, once."""

    id: str
    """Part of the prompt, so that its jobs are found in the database."""
    style: Style
    n: int
    calls_that_may_be_paid: int
    """1 plus what the model's `on_unknown_outcome` allows."""
    is_frugal: bool = False
    """Placed by the team whose budget is spent before the run is over."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One HTTP call of a client; times are seconds on the monotonic clock."""

    order_id: str
    what: str
    started_s: float
    ended_s: float
    status: int | None
    """None: there was no answer."""
    job_id: str | None = None
    job_status: str | None = None
    """The job's status as the answer tells it."""
    result_sha256: str | None = None
    """Digest of a result's whole body."""
    problem: str | None = None
    """The error's code, or what became of the connection."""

    @property
    def is_acknowledged(self) -> bool:
        """Whether the client may rely on a job from now on."""
        return self.job_id is not None and self.status is not None and self.status < 300


@dataclass(slots=True, kw_only=True)
class BookedJob:
    """A row of `jobs`."""

    id: str
    order_id: str
    """What the stored prompt says."""
    status: str
    error_code: str | None
    n: int
    to_buy: int
    has_lease: bool
    deadline_at: datetime
    finished_at: datetime | None


@dataclass(slots=True, kw_only=True)
class BookedAttempt:
    """A row of `attempts`."""

    id: str
    job_id: str
    state: str
    settled: str | None
    cost_micros: int | None


@dataclass(slots=True, kw_only=True)
class BookedBudget:
    """A row of `budgets`."""

    id: str
    limit_micros: int
    reserved_micros: int
    spent_micros: int


@dataclass(slots=True, kw_only=True)
class Bill:
    """What a vendor received, made and billed under one attempt id."""

    posts: int = 0
    charges: int = 0
    pictures: int = 0
    cost_micros: int = 0


@dataclass(slots=True, kw_only=True)
class Collected:
    """What became of fetching a succeeded job's result after the run."""

    result_sha256: str | None
    marks: Sequence[str | None]
    """For each picture, what its vendor hid in it: the attempt id, a slash and a number."""
    problem: str | None = None


@dataclass(slots=True, kw_only=True)
class History:
    """Everything that is known of a run."""

    orders: dict[str, Order] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    jobs: dict[str, BookedJob] = field(default_factory=dict)
    attempts: dict[str, BookedAttempt] = field(default_factory=dict)
    budgets: list[BookedBudget] = field(default_factory=list)
    bills: dict[str, Bill] = field(default_factory=dict)
    collected: dict[str, Collected] = field(default_factory=dict)

    def acknowledged(self) -> dict[str, set[str]]:
        """Job id -> the orders that were told of it."""
        told: dict[str, set[str]] = defaultdict(set)
        for call in self.calls:
            if call.is_acknowledged and call.job_id is not None:
                told[call.job_id].add(call.order_id)
        return told

    def jobs_of(self) -> dict[str, list[BookedJob]]:
        """Order id -> its jobs."""
        found: dict[str, list[BookedJob]] = defaultdict(list)
        for job in self.jobs.values():
            found[job.order_id].append(job)
        return found


VIOLATIONS: Final[Mapping[str, str]] = {
    "lost": "acknowledged, and unknown or not final at the end",
    "overdue": "final later than a minute after its deadline",
    "duplicated": "more was billed than the job may pay for, or one Idempotency-Key has two jobs",
    "unexpected": "a job, a call or a picture that nobody asked for, or a success that nobody billed",
    "sent twice": "one attempt reached a vendor more than once",
    "changed": "a final status was seen and is another one now",
    "two bodies": "one job was answered with two different results",
    "undecodable": "succeeded, and a picture is missing or does not open",
    "understated": "a vendor billed more than the books say",
    "over budget": "more was spent or held than the limit allows",
    "holds left": "money is still held for what is over",
}
"""What breaks a promise, and in which way. Each must be empty."""


@dataclass(slots=True, kw_only=True)
class Verdict:
    """The checker's findings."""

    violations: dict[str, list[str]]
    """Kind -> the offenders, a sentence each."""
    recovered: int
    """Orders whose clients never learned of them, and that were carried out all the same."""
    unattached: list[str]
    """SDK calls whose automatic retry started a second job: the SDK sends nothing that tells a retry of this call
    from a retry of another, so it can only be attached to a job that is there already."""
    spent_micros: int
    billed_micros: int

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        return not any(self.violations.values())


def judge(history: History) -> Verdict:
    """Compare the three sides of a run that has come to rest."""
    told = history.acknowledged()
    by_order = history.jobs_of()
    found: dict[str, list[str]] = {kind: [] for kind in VIOLATIONS}
    for kind, offenders in (
        ("lost", _lost(history, told)),
        ("overdue", _overdue(history)),
        ("duplicated", _duplicated(history, by_order)),
        ("unexpected", _unexpected(history, by_order)),
        ("sent twice", _sent_twice(history)),
        ("changed", _changed(history)),
        ("two bodies", _two_bodies(history)),
        ("undecodable", _undecodable(history)),
        ("understated", _understated(history)),
        ("over budget", _over_budget(history)),
        ("holds left", _holds_left(history)),
    ):
        found[kind] += offenders
    known_orders = {order_id for orders in told.values() for order_id in orders}
    return Verdict(
        violations=found,
        recovered=sum(
            1 for order_id in by_order if order_id in history.orders and order_id not in known_orders
        ),
        unattached=[
            f"{order_id} has the jobs {', '.join(sorted(job.id for job in jobs))}"
            for order_id, jobs in by_order.items()
            if (order := history.orders.get(order_id)) is not None and order.style == "sdk" and len(jobs) > 1
        ],
        spent_micros=sum(item.cost_micros or 0 for item in history.attempts.values()),
        billed_micros=sum(bill.cost_micros for bill in history.bills.values()),
    )


def _lost(history: History, told: Mapping[str, set[str]]) -> Iterable[str]:
    for job_id in told:
        job = history.jobs.get(job_id)
        if job is None:
            yield f"{job_id} was acknowledged and is not in the database"
        elif job.status not in FINAL:
            yield f"{job_id} was acknowledged and is still {job.status}"


def _overdue(history: History) -> Iterable[str]:
    for job in history.jobs.values():
        if job.finished_at is not None and job.finished_at > job.deadline_at + AFTER_DEADLINE:
            late_s = (job.finished_at - job.deadline_at).total_seconds()
            yield f"{job.id} became {job.status} {late_s:.0f} s after its deadline"


def _duplicated(history: History, by_order: Mapping[str, Sequence[BookedJob]]) -> Iterable[str]:
    pictures: Counter[str] = Counter()
    for attempt_id, bill in history.bills.items():
        attempt = history.attempts.get(attempt_id)
        if attempt is not None:
            pictures[attempt.job_id] += bill.pictures
    for job in history.jobs.values():
        order = history.orders.get(job.order_id)
        if order is not None and pictures[job.id] > order.n * order.calls_that_may_be_paid:
            yield f"{job.id} wanted {order.n} pictures, and {pictures[job.id]} were billed"
    for order_id, jobs in by_order.items():
        order = history.orders.get(order_id)
        if order is not None and order.style == "keyed" and len(jobs) > 1:
            yield f"{order_id} has the jobs {', '.join(sorted(job.id for job in jobs))} under one key"
    for order_id, order in history.orders.items():
        answered = {
            call.job_id for call in history.calls if call.order_id == order_id and call.is_acknowledged
        }
        if order.style == "keyed" and len(answered) > 1:
            yield f"{order_id} was told of {len(answered)} jobs under one key"


def _unexpected(history: History, by_order: Mapping[str, Sequence[BookedJob]]) -> Iterable[str]:
    for order_id, jobs in by_order.items():
        order = history.orders.get(order_id)
        if order is None:
            yield f"{jobs[0].id} makes {order_id!r}, which nobody ordered"
        elif order.style == "plain" and len(jobs) > 1:
            yield f"{order_id} was sent once and has {len(jobs)} jobs"
    charged: set[str] = set()
    for attempt_id, bill in history.bills.items():
        attempt = history.attempts.get(attempt_id)
        if attempt is None:
            yield f"a vendor was asked under {attempt_id!r}, which is in no book"
        elif bill.charges:
            charged.add(attempt.job_id)
    for job in history.jobs.values():
        if job.status == "succeeded" and job.id not in charged:
            yield f"{job.id} succeeded without any charge"
    for job_id, collected in history.collected.items():
        if len(set(collected.marks)) < len(collected.marks):
            yield f"{job_id} holds the same picture twice"
        for mark in collected.marks:
            source = history.attempts.get((mark or "").partition("/")[0])
            if source is None or source.job_id != job_id:
                yield f"{job_id} holds a picture that was made for {mark!r}"


def _sent_twice(history: History) -> Iterable[str]:
    for attempt_id, bill in history.bills.items():
        if bill.posts > 1:
            yield f"{attempt_id} was sent {bill.posts} times"


def _changed(history: History) -> Iterable[str]:
    seen: dict[str, set[str]] = defaultdict(set)
    for call in history.calls:
        if call.job_id is not None and call.job_status in FINAL:
            seen[call.job_id].add(call.job_status)
    for job_id, statuses in seen.items():
        job = history.jobs.get(job_id)
        if job is not None and statuses != {job.status}:
            yield f"{job_id} was seen {', '.join(sorted(statuses))} and is {job.status}"


def _two_bodies(history: History) -> Iterable[str]:
    bodies: dict[str, set[str]] = defaultdict(set)
    for call in history.calls:
        if call.job_id is not None and call.result_sha256 is not None:
            bodies[call.job_id].add(call.result_sha256)
    for job_id, collected in history.collected.items():
        if collected.result_sha256 is not None:
            bodies[job_id].add(collected.result_sha256)
    for job_id, digests in bodies.items():
        if len(digests) > 1:
            yield f"{job_id} was answered with {len(digests)} different results"


def _undecodable(history: History) -> Iterable[str]:
    for job in history.jobs.values():
        if job.status != "succeeded":
            continue
        collected = history.collected.get(job.id)
        if collected is None:
            yield f"the result of {job.id} was not fetched"
        elif collected.problem is not None or not collected.marks:
            yield f"the result of {job.id} cannot be used: {collected.problem or 'no picture'}"


def _understated(history: History) -> Iterable[str]:
    for attempt_id, bill in history.bills.items():
        attempt = history.attempts.get(attempt_id)
        if attempt is None or not bill.charges:
            continue
        booked = attempt.cost_micros or 0
        # The vendor's own sum is rounded to a micro-dollar by us.
        if attempt.settled != "spent" or booked < bill.cost_micros - 1:
            yield f"{attempt_id} was billed {bill.cost_micros} and is {attempt.settled or 'open'} at {booked}"


def _over_budget(history: History) -> Iterable[str]:
    for budget in history.budgets:
        if budget.spent_micros + budget.reserved_micros > budget.limit_micros:
            yield f"{budget.id} may cost {budget.limit_micros} and has cost {budget.spent_micros}"


def _holds_left(history: History) -> Iterable[str]:
    for budget in history.budgets:
        if budget.reserved_micros:
            yield f"{budget.id} still holds {budget.reserved_micros}"
    for attempt in history.attempts.values():
        if attempt.settled is None:
            yield f"{attempt.id} is still {attempt.state}"
    for job in history.jobs.values():
        if job.status in FINAL and job.to_buy:
            yield f"{job.id} is {job.status} and still holds for {job.to_buy} pictures"
        if job.status in FINAL and job.has_lease:
            yield f"{job.id} is {job.status} and still leased"
