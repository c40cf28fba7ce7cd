"""What a client is told when no route made its pictures."""

from app.domain.errors import GatewayError


class UpstreamUnavailable(GatewayError):
    """No route could be asked: each is off, set aside or out of reach. Nothing was bought."""

    status = 502
    code = "upstream_unavailable"
    type = "server_error"
    should_retry = True


class AllUpstreamsFailed(GatewayError):
    """Every attempt failed, and none of them was paid for."""

    status = 502
    code = "all_upstreams_failed"
    type = "server_error"
    should_retry = True


class UpstreamOutcomeUnknown(GatewayError):
    """An attempt may have been paid for and brought no picture; trying again might pay twice."""

    status = 502
    code = "upstream_outcome_unknown"
    type = "server_error"


class ModerationBlocked(GatewayError):
    """The vendor's content policy forbids the request."""

    code = "moderation_blocked"
    type = "image_generation_user_error"
