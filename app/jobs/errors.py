"""What a client is told of a job that made no picture, and of calls on jobs that cannot be served."""

from app.domain.errors import GatewayError


class JobNotFound(GatewayError):
    """The team has no such job; another team's is no different from one that never was."""

    status = 404
    code = "job_not_found"


class JobNotCancellable(GatewayError):
    """The job is final already."""

    status = 409
    code = "job_not_cancellable"


class JobNotRequeuable(GatewayError):
    """The job is not final yet, or its input pictures have been deleted."""


class ResultExpired(GatewayError):
    """The pictures have been deleted; the job's record stays."""

    status = 410
    code = "result_expired"


class PictureNotFound(GatewayError):
    """The job has no picture at this index."""

    status = 404
    code = "not_found"


class JobStillRunning(GatewayError):
    """The wait is over, the job is not. A repeated call is attached to the same job."""

    status = 504
    code = "job_still_running"
    type = "server_error"
    should_retry = True


class ShuttingDown(GatewayError):
    """This process is stopping. A repeated call is attached to the same job."""

    status = 503
    code = "shutting_down"
    type = "server_error"
    should_retry = True


class InMaintenance(ShuttingDown):
    """An operator lets the gateway run dry: no new job is taken in, by any process."""


class IdempotencyKeyReused(GatewayError):
    """The key stands for another request."""

    status = 422
    code = "idempotency_key_reused"


class JobPoisoned(GatewayError):
    """The job ended every worker that took it; operators find it by this code's reason."""

    status = 500
    code = "internal_error"
    type = "server_error"


class JobCancelled(GatewayError):
    """The job was cancelled, so there is no result."""

    status = 409
    code = "job_cancelled"


def no_such_job(job_id: str, param: str = "id") -> JobNotFound:
    """Say that a team has no job of this id."""
    return JobNotFound(f"There is no job {job_id!r}.", param=param)


def inputs_gone(job_id: str) -> JobNotRequeuable:
    """Say why a job cannot be repeated."""
    message = f"The input pictures of the job {job_id!r} have been deleted, so it cannot be repeated."
    return JobNotRequeuable(message, job_id=job_id)
