"""The sandbox stands in where no key can buy, and only there."""

from dataclasses import replace

from app.catalog.embedded import with_sandbox
from app.catalog.entries import Catalog, Upstream
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


def bare() -> Catalog:
    """The shipped catalog without its sandbox."""
    return replace(
        shipped(), upstreams={name: up for name, up in shipped().upstreams.items() if name != "sandbox"}
    )


def test_a_catalog_without_a_sandbox_is_given_one() -> None:
    catalog = with_sandbox(bare(), needs_no_key)
    assert catalog.upstreams["sandbox"] == shipped().upstreams["sandbox"]
    assert {model.routes[-1].upstream.adapter for model in catalog.models.values()} == {"sandbox"}


def test_a_catalog_that_keys_can_buy_all_of_comes_back_as_it_is() -> None:
    catalog = bare()
    assert with_sandbox(catalog, lambda _: True) is catalog


def test_a_sandbox_of_another_name_may_be_made_to_fail_so_it_does_not_stand_in() -> None:
    flaky = replace(shipped().upstreams["sandbox"], name="flaky")
    catalog = with_sandbox(replace(bare(), upstreams={**bare().upstreams, "flaky": flaky}), needs_no_key)
    assert catalog.models["gpt-image-2"].routes[-1].upstream.name == "sandbox"


def test_a_vendor_called_sandbox_keeps_its_name() -> None:
    vendor = replace(shipped().upstreams["openai"], name="sandbox")
    catalog = with_sandbox(replace(bare(), upstreams={**bare().upstreams, "sandbox": vendor}), needs_no_key)
    assert catalog.upstreams["sandbox"] is vendor
    assert catalog.models["gpt-image-2"].routes[-1].upstream.name == "sandbox-2"


def test_placeholder_pictures_cost_a_known_zero() -> None:
    catalog = with_sandbox(shipped(), needs_no_key)
    for model in catalog.models.values():
        route = model.routes[-1]
        assert estimate(route, model, A_REQUEST, 1) == 0
        assert upper_bound(route, model, A_REQUEST, 1) == 0
        cost = actual(route, model, A_REQUEST, 1, usage=None, cost_usd=None)
        assert (cost.micros, cost.certainty) == (0, Certainty.ESTIMATED)
