"""The sandbox stands in where no key can buy, and only there."""

from dataclasses import replace

from app.catalog.embedded import with_sandbox
from app.catalog.entries import Upstream
from app.catalog.pricing import actual, estimate, upper_bound
from app.domain.money import Certainty
from tests.catalog.shipped import A_REQUEST, shipped


def needs_no_key(upstream: Upstream) -> bool:
    return upstream.api_key_env is None


def test_without_any_key_every_model_is_served_by_the_sandbox_last() -> None:
    catalog = with_sandbox(shipped(), needs_no_key)
    for name, model in catalog.models.items():
        assert [route.upstream.name for route in model.routes].count("sandbox") == 1
        assert model.routes[-1].upstream.name == "sandbox"
        assert model.routes[-1].model == name
        assert model.routes[-1].supports.edits


def test_a_model_that_a_key_can_buy_is_left_alone() -> None:
    catalog = with_sandbox(shipped(), lambda upstream: upstream.name == "therouter")
    for name in ("gpt-image-2", "gpt-image-1.5", "gpt-image-1", "gpt-image-1-mini"):
        assert catalog.models[name] == shipped().models[name]
    assert catalog.models["chatgpt-image-latest"].routes[-1].upstream.name == "sandbox"


def test_a_catalog_without_a_sandbox_comes_back_as_it_is() -> None:
    bare = replace(
        shipped(), upstreams={name: up for name, up in shipped().upstreams.items() if name != "sandbox"}
    )
    assert with_sandbox(bare, needs_no_key) is bare


def test_placeholder_pictures_cost_a_known_zero() -> None:
    catalog = with_sandbox(shipped(), needs_no_key)
    for model in catalog.models.values():
        route = model.routes[-1]
        assert estimate(route, model, A_REQUEST, 1) == 0
        assert upper_bound(route, model, A_REQUEST, 1) == 0
        cost = actual(route, model, A_REQUEST, 1, usage=None, cost_usd=None)
        assert (cost.micros, cost.certainty) == (0, Certainty.ESTIMATED)
