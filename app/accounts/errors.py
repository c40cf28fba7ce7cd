"""What callers are told about their keys, and operators about teams and keys that are not there."""

from app.domain.errors import GatewayError


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
    """The key cannot be rotated: its life is over, or it stands in the settings."""


class NameTaken(GatewayError):
    """Another team has this name."""
