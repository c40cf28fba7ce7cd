"""What operators are told beside the errors of the rooms that they act on."""

from app.domain.errors import GatewayError


class EntryNotFound(GatewayError):
    """There is no such entry in the audit log."""

    status = 404
    code = "not_found"
