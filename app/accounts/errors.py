"""What callers are told about their keys, and operators about teams and keys that are not there."""

from app.domain.errors import GatewayError
from app.domain.rates import Rate


class InvalidApiKey(GatewayError):
    """No key, a wrong one, a revoked one, or one of the wrong kind."""

    status = 401
    code = "invalid_api_key"


class KeyExpired(GatewayError):
    """The key was right once."""

    status = 401
    code = "key_expired"


class AdminKeyRequired(GatewayError):
    """The key is right, and is no operator's."""

    status = 403
    code = "admin_key_required"


class TeamNotFound(GatewayError):
    """There is no such team."""

    status = 404
    code = "not_found"


class KeyNotFound(GatewayError):
    """There is no such key."""

    status = 404
    code = "not_found"


class KeyNotUsable(GatewayError):
    """What is to be done with the key cannot be: its life is over, or it stands in the settings."""


class NameTaken(GatewayError):
    """Another team has this name."""


class ModelNotAllowed(GatewayError):
    """The team or the key is limited to other models."""

    status = 403
    code = "model_not_allowed"


class RateLimitExceeded(GatewayError):
    """Too many requests, pictures or jobs for now. Nothing was made, so asking again is safe."""

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"
    should_retry = True

    def __init__(
        self,
        message: str,
        *,
        limit: str,
        retry_after_s: float | None = None,
        param: str | None = None,
        rates: tuple[Rate, ...] = (),
    ) -> None:
        """`limit`: which of the limits of contract 9; `rates`: how the caller stands, for the headers."""
        super().__init__(message, retry_after_s=retry_after_s, param=param)
        self.limit = limit
        self.rates = rates


class RateTooSmall(RateLimitExceeded):
    """One request asks for more than a minute's worth, so waiting does not help."""

    should_retry = False

    def __init__(self, message: str, *, limit: str, param: str) -> None:
        """`limit`: as above; `param`: what has to become smaller."""
        super().__init__(message, limit=limit, param=param)


class QueueFull(GatewayError):
    """Too many jobs of the team or of the key wait already."""

    status = 429
    code = "queue_full"
    type = "rate_limit_error"
    should_retry = True
