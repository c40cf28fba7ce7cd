"""What clients and operators are told about webhooks."""

from app.domain.errors import GatewayError


class ReceiverRefused(GatewayError):
    """A URL that nothing may be sent to."""

    code = "invalid_url"


class EndpointNotFound(GatewayError):
    """There is no such endpoint."""

    status = 404
    code = "not_found"


class DeliveryNotFound(GatewayError):
    """There is no such delivery."""

    status = 404
    code = "not_found"


class SigningTeamNotFound(GatewayError):
    """There is no such team to sign for."""

    status = 404
    code = "not_found"


class ReceiverNotInUse(GatewayError):
    """A delivery cannot be sent again, because its endpoint is disabled or deleted."""
