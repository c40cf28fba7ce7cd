"""What pictures that were made would have cost elsewhere: the measure of what choosing a route saves. Pure."""

from app.catalog.entries import Model
from app.catalog.pricing import actual
from app.domain.money import Certainty
from app.domain.requests import ImageRequest
from app.routing.candidates import inability
from app.upstreams.contract import Finished


def dearest(model: Model, request: ImageRequest, pictures: int, outcome: Finished) -> int:
    """Micro-dollars for the same pictures, with the same usage, at the dearest of the routes that can do the request.

    Made after the fact, when size, quality and tokens are known that an estimate would have had to assume. Routes
    without a price say nothing, and what one vendor charged is no measure for the others; 0 when none has a price.
    """
    costs = (
        actual(
            route,
            model,
            request,
            pictures,
            usage=outcome.usage,
            cost_usd=None,
            size=outcome.size,
            quality=outcome.quality,
        )
        for route in model.routes
        if inability(route, request, can_link=True) is None
    )
    return max((cost.micros for cost in costs if cost.certainty is not Certainty.UNPRICED), default=0)
