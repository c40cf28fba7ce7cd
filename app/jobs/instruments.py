"""What is counted of jobs and attempts. Labels hold names of the catalog and closed lists, never what clients send.

A change that a transaction makes is counted once it is committed.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.accounts.errors import RateLimitExceeded
from app.domain.errors import GatewayError
from app.domain.failures import FailureKind
from app.domain.money import Certainty
from app.jobs.records import Attempt, Job
from app.kit.metrics import Registry

_SECONDS: Final = (
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    20.0,
    30.0,
    45.0,
    60.0,
    90.0,
    120.0,
    180.0,
    300.0,
    600.0,
)
"""Pictures take from seconds to minutes; the queue should take tenths."""
_MICROS: Final = 1_000_000
SUCCEEDED: Final = "succeeded"
"""The outcome of an attempt that made pictures; the others are failure kinds."""


class JobInstruments:
    """Counts in one process."""

    def __init__(self, registry: Registry | None = None) -> None:
        """Without a `registry`, nobody reads what is counted."""
        registry = CollectorRegistry() if registry is None else registry
        self._admitted = Counter(
            "darkroom_jobs_admitted",
            "Jobs taken in by this process.",
            ("model", "operation"),
            registry=registry,
        )
        self._refused = Counter(
            "darkroom_jobs_refused",
            "Requests for pictures that became no job, by the error's code; rates by what was limited.",
            ("reason",),
            registry=registry,
        )
        self._attached = Counter(
            "darkroom_jobs_attached",
            "Requests that were repetitions and got the job that was there, by what told so.",
            ("by",),
            registry=registry,
        )
        self._finished = Counter(
            "darkroom_jobs_finished",
            "Jobs that became final in this process, by their status.",
            ("model", "operation", "status"),
            registry=registry,
        )
        self._queued_s = Histogram(
            "darkroom_job_queue_seconds",
            "From a job's submission to its first claim, told when it has ended.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._duration_s = Histogram(
            "darkroom_job_duration_seconds",
            "From a job's submission to its end.",
            ("model", "operation", "status"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._attempts_s = Histogram(
            "darkroom_attempt_duration_seconds",
            "From an attempt's intent to its outcome: `succeeded`, or a failure kind.",
            ("upstream", "model", "outcome"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._pictures = Counter(
            "darkroom_pictures",
            "Pictures that upstreams delivered and storage took.",
            ("upstream", "model"),
            registry=registry,
        )
        self._cost_usd = Counter(
            "darkroom_cost_usd",
            "What attempts cost as booked at their end, in US dollars, by how sure that is.",
            ("upstream", "certainty"),
            registry=registry,
        )
        self._unpriced = Counter(
            "darkroom_attempts_unpriced",
            "Attempts that may have cost something of which the price is not known.",
            ("upstream",),
            registry=registry,
        )
        self._claimed = Counter(
            "darkroom_jobs_claimed", "Claims of jobs by this worker, repeated ones too.", registry=registry
        )
        self._carried = Gauge(
            "darkroom_worker_jobs", "Jobs that this worker carries at the moment.", registry=registry
        )
        self._slots = Gauge(
            "darkroom_worker_slots", "Jobs that this worker carries at most.", registry=registry
        )
        self._lost = Counter(
            "darkroom_leases_lost",
            "Jobs that this worker held and found to be somebody else's.",
            registry=registry,
        )
        self._rescued = Counter(
            "darkroom_jobs_rescued",
            "Jobs that this process took from workers that no longer renewed their lease.",
            registry=registry,
        )

    def admitted(self, job: Job) -> None:
        """Count a new job."""
        self._admitted.labels(job.request.model, job.request.operation.value).inc()

    def refused(self, error: GatewayError) -> None:
        """Count a request that became no job."""
        reason = error.limit if isinstance(error, RateLimitExceeded) else error.code
        self._refused.labels(reason).inc()

    def attached(self, *, by_key: bool) -> None:
        """Count a request that got the job of an earlier one, by its idempotency key or as an SDK's own retry."""
        self._attached.labels("idempotency_key" if by_key else "sdk_retry").inc()

    def ended(self, job: Job) -> None:
        """Count a job that has just become final."""
        labels = (job.request.model, job.request.operation.value, job.status.value)
        self._finished.labels(*labels).inc()
        if job.finished_at is not None:
            self._duration_s.labels(*labels).observe((job.finished_at - job.created_at).total_seconds())
        if job.started_at is not None:
            queued_s = (job.started_at - job.created_at).total_seconds()
            self._queued_s.labels(job.request.model).observe(queued_s)

    def failed(self, attempt: Attempt, job: Job, kind: FailureKind, *, may_be_paid: bool) -> None:
        """Count an attempt that ended without pictures."""
        self._took(attempt, job, kind.value)
        if may_be_paid:
            certainty = Certainty.UNPRICED if attempt.hold_micros is None else Certainty.POSSIBLE
            self._cost(attempt.upstream, attempt.hold_micros or 0, certainty)

    def delivered(
        self,
        attempt: Attempt,
        job: Job,
        pictures: int,
        cost_micros: int,
        certainty: Certainty,
        *,
        is_booked: bool,
    ) -> None:
        """Count an attempt that made pictures; `is_booked`: it had been written off, and its possible cost counted."""
        self._took(attempt, job, SUCCEEDED)
        self._pictures.labels(attempt.upstream, job.request.model).inc(pictures)
        if not is_booked:
            self._cost(attempt.upstream, cost_micros, certainty)

    def claimed(self, jobs: int) -> None:
        """Count jobs that this worker has just taken."""
        self._claimed.inc(jobs)

    def work(self, carried: Callable[[], int], slots: int) -> None:
        """Tell from now on how many jobs this worker carries, of how many."""
        self._carried.set_function(carried)
        self._slots.set(slots)

    def lease_lost(self) -> None:
        """Count a job that turned out to be somebody else's."""
        self._lost.inc()

    def rescued(self, jobs: int) -> None:
        """Count jobs taken from silent workers."""
        self._rescued.inc(jobs)

    def _took(self, attempt: Attempt, job: Job, outcome: str) -> None:
        # By this machine's clock, because not every transaction that ends an attempt asks for the database's.
        took_s = max((datetime.now(UTC) - attempt.opened_at).total_seconds(), 0.0)
        self._attempts_s.labels(attempt.upstream, job.request.model, outcome).observe(took_s)

    def _cost(self, upstream: str, cost_micros: int, certainty: Certainty) -> None:
        if certainty is Certainty.UNPRICED:
            self._unpriced.labels(upstream).inc()
        else:
            self._cost_usd.labels(upstream, certainty.value).inc(cost_micros / _MICROS)
