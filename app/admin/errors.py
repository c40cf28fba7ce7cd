"""What operators are told beside the errors of the rooms that they act on."""

from app.domain.errors import GatewayError


class EntryNotFound(GatewayError):
    """There is no such entry in the audit log."""

    status = 404
    code = "not_found"


class CatalogRefused(GatewayError):
    """The catalog file has mistakes, which the message lists with their places."""


class UpstreamNotFound(GatewayError):
    """The catalog in force has no such upstream, or the upstream sells no such model."""

    status = 404
    code = "not_found"
