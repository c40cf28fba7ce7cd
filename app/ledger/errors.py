"""What callers and operators are told about money."""

from app.domain.errors import GatewayError


class InsufficientQuota(GatewayError):
    """A budget has no room for the request. Never retried: it stays so until the budget renews or is raised."""

    status = 429
    code = "insufficient_quota"
    type = "insufficient_quota"


class ReportTooLong(GatewayError):
    """The spend of this span has more groups than one answer lists."""


class ExportUnreadable(GatewayError):
    """A vendor's usage export has a row that says nothing, or two things."""
