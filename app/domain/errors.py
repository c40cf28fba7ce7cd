"""The family of errors that are ours to answer; each room defines its own members where it raises them."""

from typing import ClassVar

from app.domain.rates import Rate


class GatewayError(Exception):
    """Something the client is told, with a stable `code` and an HTTP status (contract 7).

    `message` says what happened, the offending value, and what would work. It never holds a key, a prompt or a
    signed link. `retry_after_s` becomes the `retry-after` header (at most 60 s).
    `should_retry` becomes `x-should-retry`: True only where a repeated call cannot be paid for twice.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "invalid_value"
    type: ClassVar[str] = "invalid_request_error"
    should_retry: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        job_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.job_id = job_id
        self.retry_after_s = retry_after_s
        self.rates: tuple[Rate, ...] = ()
        """How the caller stands with what is counted of it, once that is known."""


class InvalidValue(GatewayError):
    """A parameter has a value that nothing can serve."""


class MissingParameter(GatewayError):
    """A required parameter is absent."""

    code = "missing_required_parameter"


class UnknownParameter(GatewayError):
    """A parameter that this endpoint does not have."""

    code = "unknown_parameter"


class UnsupportedParameter(GatewayError):
    """A known parameter that the model, or Darkroom so far, cannot honour."""

    code = "unsupported_parameter"


class ModelNotFound(GatewayError):
    """The catalog has no such model."""

    status = 404
    code = "model_not_found"
