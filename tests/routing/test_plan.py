"""Who is asked, in which order, and why each other route is not."""

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from app.catalog.entries import Model, Prices, Route, RoutingPolicy
from app.domain.requests import ImageRequest
from app.routing.plan import Absence, Pair, Plan, Standing, plan
from tests.catalog.shipped import A_REQUEST, AN_EDIT, a_picture, shipped

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
OPENAI, XAIROUTER = ("openai", "gpt-image-2"), ("xairouter", "gpt-image-2")
THEROUTER = ("therouter", "openai/gpt-image-2")
NO_KEY = Standing(absence=Absence.OFF, reason="OPENAI_API_KEY is not set.")
COOLING = Standing(absence=Absence.LATER, reason="It asked for a pause.", retry_at=NOON)
FULL = Standing(absence=Absence.LATER, reason="It is at its limit.")


def a_model(name: str = "gpt-image-2") -> Model:
    """A shipped model with the routes that these tests are about."""
    model = shipped().models[name]
    routes = [route for route in model.routes if route.upstream.name in {"openai", "xairouter", "therouter"}]
    return replace(model, routes=tuple(routes))


def asked(found: Plan) -> list[str]:
    return [candidate.route.upstream.name for candidate in found.candidates]


def left_out(found: Plan) -> list[tuple[str, Absence]]:
    return [(left.route.upstream.name, left.absence) for left in found.left_out]


def routed_by(policy: RoutingPolicy, model: Model | None = None) -> Model:
    model = model or a_model()
    return replace(model, routing=replace(model.routing, policy=policy))


def repriced(route: Route, usd: str | None) -> Route:
    prices = (
        Prices() if usd is None else Prices(per_image=dict.fromkeys(("low", "medium", "high"), Decimal(usd)))
    )
    return replace(route, prices=prices)


def test_priority_keeps_the_order_of_the_catalog() -> None:
    found = plan(a_model(), A_REQUEST, standing={})
    assert asked(found) == ["openai", "xairouter", "therouter"]
    assert found.left_out == ()
    assert found.refusal() is None


def test_a_candidate_carries_its_estimate_and_its_pictures_per_call() -> None:
    request = replace(A_REQUEST, prompt="", n=2, quality="low", size="1024x1024")
    found = plan(a_model(), request, standing={})
    assert [candidate.estimate_micros for candidate in found.candidates] == [11_760, 11_760, 14_112]
    assert [candidate.pictures for candidate in found.candidates] == [2, 2, 2]


def test_every_route_is_either_asked_or_explained_exactly_once() -> None:
    masked = replace(AN_EDIT, mask=a_picture())
    found = plan(a_model(), masked, standing={OPENAI: NO_KEY})
    assert asked(found) == ["xairouter"]
    assert left_out(found) == [("openai", Absence.OFF), ("therouter", Absence.UNABLE)]
    assert [left.param for left in found.left_out] == [None, "mask"]
    assert found.left_out[0].reason == NO_KEY.reason


def test_a_vendor_that_must_fetch_inputs_is_asked_only_while_it_can() -> None:
    model = shipped().models["gpt-image-2"]
    assert left_out(plan(model, AN_EDIT, standing={})) == [("imarouter", Absence.UNABLE)]
    assert "imarouter" in asked(plan(model, AN_EDIT, standing={}, can_link=True))


def test_an_unable_route_is_unable_even_while_it_is_off() -> None:
    found = plan(a_model(), replace(A_REQUEST, moderation="low"), standing={THEROUTER: NO_KEY})
    assert left_out(found) == [("therouter", Absence.UNABLE)]


def test_a_standing_is_of_a_pair_and_spares_the_upstreams_other_models() -> None:
    found = plan(a_model("gpt-image-1.5"), A_REQUEST, standing={OPENAI: COOLING})
    assert asked(found) == ["openai", "therouter"]


def test_cheapest_asks_by_the_price_of_this_very_request_and_the_unpriced_last() -> None:
    first, second, third = a_model().routes
    routes = (repriced(first, None), repriced(second, "0.2"), repriced(third, "0.1"))
    model = replace(routed_by(RoutingPolicy.CHEAPEST), routes=routes)
    assert asked(plan(model, A_REQUEST, standing={})) == ["therouter", "xairouter", "openai"]


def test_equal_prices_keep_the_order_of_the_catalog() -> None:
    assert asked(plan(routed_by(RoutingPolicy.CHEAPEST), A_REQUEST, standing={})) == [
        "openai",
        "xairouter",
        "therouter",
    ]


def test_fastest_asks_by_measured_latency_and_the_unmeasured_last() -> None:
    measured: dict[Pair, float] = {THEROUTER: 20.0, XAIROUTER: 35.5}
    found = plan(routed_by(RoutingPolicy.FASTEST), A_REQUEST, standing={}, latency_s=measured)
    assert asked(found) == ["therouter", "xairouter", "openai"]


def test_weighted_asks_first_in_proportion_to_the_weights() -> None:
    routes = tuple(
        replace(route, weight=weight) for route, weight in zip(a_model().routes, (6, 3, 1), strict=True)
    )
    model = replace(routed_by(RoutingPolicy.WEIGHTED), routes=routes)
    chance = random.Random(7)
    firsts = Counter(asked(plan(model, A_REQUEST, standing={}, chance=chance))[0] for _ in range(2000))
    assert firsts["openai"] == pytest.approx(1200, abs=80)
    assert firsts["xairouter"] == pytest.approx(600, abs=80)
    assert firsts["therouter"] == pytest.approx(200, abs=60)


def test_weighted_asks_every_route_once() -> None:
    model = routed_by(RoutingPolicy.WEIGHTED)
    for seed in range(20):
        found = plan(model, A_REQUEST, standing={}, chance=random.Random(seed))
        assert sorted(asked(found)) == ["openai", "therouter", "xairouter"]


def test_a_route_without_a_price_is_out_while_a_budget_is_in_force() -> None:
    model = a_model("gpt-image-1.5")
    assert asked(plan(model, A_REQUEST, standing={})) == ["openai", "therouter"]
    found = plan(model, A_REQUEST, standing={}, is_budgeted=True)
    assert asked(found) == ["openai"]
    assert left_out(found) == [("therouter", Absence.OFF)]
    assert "budget" in found.left_out[0].reason


def test_the_first_known_time_of_return_is_the_plans() -> None:
    later = replace(COOLING, retry_at=NOON + timedelta(seconds=9))
    found = plan(a_model(), A_REQUEST, standing={OPENAI: later, XAIROUTER: COOLING, THEROUTER: FULL})
    assert found.retry_at == NOON
    assert plan(a_model(), A_REQUEST, standing={OPENAI: FULL}).retry_at is None


def everywhere(standing: Standing) -> dict[Pair, Standing]:
    return {OPENAI: standing, XAIROUTER: standing, THEROUTER: standing}


def refusal_code(request: ImageRequest, standing: dict[Pair, Standing]) -> tuple[int, str, str | None] | None:
    error = plan(a_model(), request, standing=standing).refusal()
    return None if error is None else (error.status, error.code, error.param)


def test_a_request_is_accepted_while_any_able_route_is_ready_or_comes_back() -> None:
    assert refusal_code(A_REQUEST, {OPENAI: NO_KEY, XAIROUTER: NO_KEY}) is None
    assert refusal_code(A_REQUEST, everywhere(NO_KEY) | {XAIROUTER: COOLING}) is None


def test_a_request_whose_able_routes_are_all_off_is_the_operators_to_mend() -> None:
    found = plan(a_model(), A_REQUEST, standing=everywhere(NO_KEY))
    error = found.refusal()
    assert error is not None
    assert (error.status, error.code, error.param, error.should_retry) == (
        502,
        "upstream_unavailable",
        None,
        True,
    )
    assert error.retry_after_s is not None
    assert error.retry_after_s <= 60


def test_an_able_route_that_is_off_counts_for_more_than_unable_ones() -> None:
    masked = replace(AN_EDIT, mask=a_picture())
    assert refusal_code(masked, everywhere(NO_KEY)) == (502, "upstream_unavailable", None)


def test_a_request_that_no_route_can_do_is_refused_by_its_parameter() -> None:
    only = replace(a_model(), routes=a_model().routes[2:])
    error = plan(only, replace(A_REQUEST, output_compression=50, output_format="webp"), standing={}).refusal()
    assert error is not None
    assert (error.status, error.code, error.param) == (400, "unsupported_parameter", "output_compression")
    assert "'therouter' does not accept 'output_compression'" in error.message
