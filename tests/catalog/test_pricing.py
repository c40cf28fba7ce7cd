"""Prices: published tables to their printed digits, recorded usages exactly."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal

import pytest

from app.catalog.entries import Model, Prices, Route, SizeRule, TokenPrices, TokenRule
from app.catalog.pricing import Cost, actual, estimate, output_tokens, upper_bound
from app.domain.money import Certainty
from app.domain.pictures import Size, parse_size
from app.domain.results import Usage
from tests.catalog.shipped import A_REQUEST, AN_EDIT, a_model, a_picture, a_route

QUALITIES = ("low", "medium", "high")
NO_TEXT = replace(A_REQUEST, prompt="")


def tokens(model: str, size: str, quality: str) -> int | None:
    rule, parsed = a_model(model).tokens, parse_size(size)
    assert rule is not None
    assert parsed is not None
    return output_tokens(rule, quality, parsed)


@pytest.mark.parametrize(
    "sizes, printed",
    [
        (("1024x768", "768x1024"), (134, 1204, 4815)),
        (("1024x1024",), (196, 1756, 7024)),
        (("1024x1536", "1536x1024"), (158, 1372, 5488)),
        (("1280x768",), (120, 1039, 4153)),
        (("2048x1152",), (157, 1413, 5650)),
        (("2048x2048",), (397, 3568, 14272)),
        (("2560x1440",), (205, 1843, 7370)),
        (("2880x2880",), (659, 5930, 23719)),
        (("3072x2160",), (380, 3524, 14094)),
        (("3840x2160", "2160x3840"), (371, 3336, 13342)),
        (("816x816",), (171, 1536, 6143)),
    ],
)
def test_the_formula_reproduces_the_table_of_gpt_image_2(
    sizes: tuple[str, ...], printed: tuple[int, ...]
) -> None:
    for size in sizes:
        assert tuple(tokens("gpt-image-2", size, quality) for quality in QUALITIES) == printed


@pytest.mark.parametrize(
    "size, recorded",
    [("960x960", 187), ("896x896", 180), ("768x1024", 134), ("3072x2160", 380), ("1024x1024", 196)],
)
def test_the_formula_reproduces_recorded_usages_of_low_pictures(size: str, recorded: int) -> None:
    assert tokens("gpt-image-2", size, "low") == recorded


@pytest.mark.parametrize("model", ["gpt-image-1", "gpt-image-1.5"])
@pytest.mark.parametrize(
    "size, printed",
    [("1024x1024", (272, 1056, 4160)), ("1024x1536", (408, 1584, 6240)), ("1536x1024", (400, 1568, 6208))],
)
def test_the_first_generation_counts_tokens_by_its_table(
    model: str, size: str, printed: tuple[int, ...]
) -> None:
    assert tuple(tokens(model, size, quality) for quality in QUALITIES) == printed


def test_tokens_of_a_quality_without_a_factor_are_not_known() -> None:
    assert output_tokens(TokenRule(factors={"low": 16}), "max", Size(1024, 1024)) is None
    assert output_tokens(TokenRule(table={"low": {"1024x1024": 272}}), "low", Size(512, 512)) is None
    assert output_tokens(TokenRule(), "low", Size(1024, 1024)) is None


def test_the_formula_takes_the_factors_of_another_model() -> None:
    rule = TokenRule(factors={"low": 16, "medium": 24, "high": 48, "xhigh": 64, "max": 96})
    assert output_tokens(rule, "max", Size(1024, 1024)) == 7024


def digits(amount: Decimal, like: str) -> Decimal:
    return amount.quantize(Decimal(like), ROUND_HALF_UP)


@pytest.mark.parametrize(
    "model, size, printed",
    [
        ("gpt-image-2", "1024x1024", ("0.006", "0.053", "0.211")),
        ("gpt-image-2", "1024x1536", ("0.005", "0.041", "0.165")),
        ("gpt-image-2", "1536x1024", ("0.005", "0.041", "0.165")),
        ("gpt-image-1.5", "1024x1024", ("0.009", "0.034", "0.133")),
        ("gpt-image-1.5", "1024x1536", ("0.013", "0.05", "0.20")),
        ("gpt-image-1.5", "1536x1024", ("0.013", "0.05", "0.20")),
        ("gpt-image-1-mini", "1024x1024", ("0.005", "0.011", "0.036")),
        ("gpt-image-1-mini", "1024x1536", ("0.006", "0.015", "0.052")),
        ("gpt-image-1-mini", "1536x1024", ("0.006", "0.015", "0.052")),
    ],
)
def test_estimates_at_openai_agree_with_its_price_list_to_the_printed_digit(
    model: str, size: str, printed: tuple[str, ...]
) -> None:
    for quality, price in zip(QUALITIES, printed, strict=True):
        request = replace(NO_TEXT, size=size, quality=quality)
        micros = estimate(a_route("openai", model), a_model(model), request, 1)
        assert micros is not None
        assert digits(Decimal(micros) / 1_000_000, price) == Decimal(price)
        listed = a_route("openai", model).prices.per_image
        assert listed is not None
        row = listed[quality]
        assert isinstance(row, Mapping)
        assert row[size] == Decimal(price)


@pytest.mark.parametrize(
    "size, printed",
    [("1024x1024", ("0.011", "0.042", "0.167")), ("1536x1024", ("0.016", "0.063", "0.25"))],
)
def test_the_tokens_of_gpt_image_1_meet_its_old_price_list_to_one_unit_of_the_last_digit(
    size: str, printed: tuple[str, ...]
) -> None:
    for quality, price in zip(QUALITIES, printed, strict=True):
        count = tokens("gpt-image-1", size, quality)
        assert count is not None
        unit = Decimal((0, (1,), -len(price.partition(".")[2])))
        assert abs(Decimal(count) * 40 / 1_000_000 - Decimal(price)) < unit


@pytest.mark.parametrize(
    "size, printed",
    [
        ("1024x768", ("0.005", "0.037", "0.145")),
        ("1024x1536", ("0.005", "0.042", "0.165")),
        ("1920x1080", ("0.005", "0.040", "0.158")),
        ("2560x1440", ("0.007", "0.056", "0.222")),
        ("3840x2160", ("0.012", "0.101", "0.401")),
    ],
)
def test_a_reseller_that_rounds_up_is_met_to_one_unit_of_the_last_digit(
    size: str, printed: tuple[str, ...]
) -> None:
    for quality, price in zip(QUALITIES, printed, strict=True):
        count = tokens("gpt-image-2", size, quality)
        assert count is not None
        assert abs(Decimal(count) * 30 / 1_000_000 - Decimal(price)) < Decimal("0.001")


@pytest.mark.parametrize("model", ["gpt-image-2", "gpt-image-1"])
def test_therouter_is_a_fifth_above_openai_by_token_and_by_image(model: str) -> None:
    for quality in QUALITIES:
        request = replace(NO_TEXT, size="1024x1024", quality=quality)
        micros = estimate(a_route("therouter", model), a_model(model), request, 1)
        listed = a_route("therouter", model).prices.per_image
        assert micros is not None
        assert listed is not None
        row = listed[quality]
        assert isinstance(row, Decimal)
        assert Decimal(micros) / 1_000_000 == pytest.approx(row, rel=Decimal("0.025"))


def test_an_estimate_counts_prompt_inputs_pictures_and_partials() -> None:
    request = replace(
        AN_EDIT,
        prompt="p" * 400,
        images=(a_picture(), a_picture()),
        quality="low",
        size="1024x1024",
        stream=True,
        partial_images=2,
    )
    expected = 100 * 5 + 2 * 512 * 8 + 3 * (196 + 2 * 100) * 30
    assert estimate(a_route("openai"), a_model(), request, 3) == expected


def test_partials_cost_nothing_on_a_route_that_does_not_stream() -> None:
    request = replace(NO_TEXT, quality="low", size="1024x1024", stream=True, partial_images=2)
    assert estimate(a_route("therouter"), a_model(), request, 1) == 196 * 36


def test_an_estimate_takes_what_is_left_open_as_a_medium_square() -> None:
    stated = replace(NO_TEXT, quality="medium", size="1024x1024")
    for request in (NO_TEXT, replace(NO_TEXT, quality="auto", size="auto")):
        assert estimate(a_route("openai"), a_model(), request, 1) == 1756 * 30
        assert estimate(a_route("openai"), a_model(), request, 1) == estimate(
            a_route("openai"), a_model(), stated, 1
        )


def test_the_upper_bound_takes_what_is_left_open_at_its_dearest() -> None:
    assert upper_bound(a_route("openai"), a_model(), NO_TEXT, 2) == 2 * 23719 * 30
    auto = replace(NO_TEXT, size="auto", quality="auto")
    assert upper_bound(a_route("openai"), a_model(), auto, 1) == 23719 * 30
    classic = a_model("gpt-image-1.5")
    assert upper_bound(a_route("openai", "gpt-image-1.5"), classic, NO_TEXT, 1) == 200_000


def test_the_upper_bound_takes_what_is_stated_as_stated() -> None:
    request = replace(NO_TEXT, size="2048x2048", quality="high")
    assert upper_bound(a_route("xairouter"), a_model(), request, 1) == 14272 * 30


def test_the_upper_bound_counts_a_token_for_each_byte_of_the_prompt() -> None:
    request = replace(A_REQUEST, prompt="灯台", size="2048x2048", quality="high")
    assert upper_bound(a_route("xairouter"), a_model(), request, 1) == 6 * 5 + 14272 * 30


def test_the_upper_bound_is_the_higher_of_two_published_prices() -> None:
    request = replace(NO_TEXT, size="1024x1536", quality="high")
    assert 5488 * 36 < 253_200
    assert upper_bound(a_route("therouter"), a_model(), request, 1) == 253_200


@pytest.mark.parametrize("size", ["auto", None, "1024x1024", "2880x2880", "3840x2160", "1024x640"])
@pytest.mark.parametrize("quality", ["auto", None, *QUALITIES])
@pytest.mark.parametrize("upstream", ["openai", "xairouter", "therouter"])
def test_no_estimate_passes_its_upper_bound(upstream: str, quality: str | None, size: str | None) -> None:
    route, model = a_route(upstream), a_model()
    for request in (A_REQUEST, replace(AN_EDIT, mask=a_picture(), stream=True, partial_images=3)):
        asked = replace(request, quality=quality, size=size)
        low, high = estimate(route, model, asked, 4), upper_bound(route, model, asked, 4)
        assert low is not None
        assert high is not None
        assert 0 < low <= high


def priced(route: Route, prices: Prices) -> Route:
    return replace(route, prices=prices)


def untabled(model: Model) -> Model:
    return replace(model, tokens=None)


UNPRICED = priced(a_route("openai"), Prices())
A_USAGE = Usage(text_input=14, image_output=196)


def cost(route: Route, model: Model, usage: Usage | None = None, cost_usd: str | None = None) -> Cost:
    request = replace(NO_TEXT, size="1024x1024", quality="low")
    charged = None if cost_usd is None else Decimal(cost_usd)
    return actual(route, model, request, 1, usage=usage, cost_usd=charged)


def test_reported_usage_at_token_prices_wins_over_everything() -> None:
    found = cost(a_route("openai"), a_model(), A_USAGE, cost_usd="0.9")
    assert found == Cost(micros=14 * 5 + 196 * 30, certainty=Certainty.ACTUAL)


def test_an_amount_that_the_vendor_states_comes_next() -> None:
    found = cost(a_route("openai"), a_model(), cost_usd="0.042")
    assert found == Cost(micros=42_000, certainty=Certainty.ACTUAL)
    by_image_only = priced(a_route("openai"), Prices(per_image={"low": Decimal("0.01")}))
    assert cost(by_image_only, a_model(), A_USAGE, cost_usd="0.042").micros == 42_000


def test_then_the_formulas_tokens_then_the_price_of_an_image() -> None:
    assert cost(a_route("openai"), a_model()) == Cost(micros=5880, certainty=Certainty.ESTIMATED)
    by_image = cost(a_route("openai"), untabled(a_model()))
    assert by_image == Cost(micros=6000, certainty=Certainty.ESTIMATED)


def test_a_route_without_a_price_is_unpriced_unless_the_vendor_states_an_amount() -> None:
    assert cost(UNPRICED, a_model(), A_USAGE) == Cost(micros=0, certainty=Certainty.UNPRICED)
    assert cost(UNPRICED, a_model(), cost_usd="0.042") == Cost(micros=42_000, certainty=Certainty.ACTUAL)
    assert estimate(UNPRICED, a_model(), NO_TEXT, 1) is None
    assert upper_bound(UNPRICED, a_model(), NO_TEXT, 1) is None


def test_a_usage_without_output_tokens_is_no_usage() -> None:
    assert cost(a_route("openai"), a_model(), Usage(text_input=14)).certainty is Certainty.ESTIMATED


def test_an_estimated_cost_is_for_what_the_vendor_says_it_chose() -> None:
    found = actual(
        a_route("openai"),
        a_model(),
        NO_TEXT,
        2,
        usage=None,
        cost_usd=None,
        size="1536x1024",
        quality="low",
    )
    assert found == Cost(micros=2 * 158 * 30, certainty=Certainty.ESTIMATED)


def test_an_odd_size_chosen_by_the_vendor_leaves_the_cost_known() -> None:
    found = actual(
        a_route("openai", "gpt-image-1.5"),
        a_model("gpt-image-1.5"),
        NO_TEXT,
        1,
        usage=None,
        cost_usd=None,
        size="1254x1254",
        quality="low",
    )
    assert found.certainty is Certainty.ESTIMATED
    assert found.micros == 1056 * 32


def test_cached_and_text_output_tokens_have_their_own_rates_where_published() -> None:
    prices = TokenPrices(
        text_input=Decimal(5),
        cached_text_input=Decimal("1.25"),
        image_input=Decimal(8),
        cached_image_input=Decimal(2),
        text_output=Decimal(10),
        image_output=Decimal(32),
    )
    usage = Usage(
        text_input=100,
        cached_text_input=40,
        image_input=1000,
        cached_image_input=600,
        text_output=7,
        image_output=11,
    )
    found = cost(priced(a_route("openai"), Prices(per_million_tokens=prices)), a_model(), usage)
    assert found.micros == 60 * 5 + 50 + 400 * 8 + 600 * 2 + 7 * 10 + 11 * 32
    bare = TokenPrices(text_input=Decimal(5), image_input=Decimal(8), image_output=Decimal(32))
    found = cost(priced(a_route("openai"), Prices(per_million_tokens=bare)), a_model(), usage)
    assert found.micros == 100 * 5 + 1000 * 8 + 18 * 32


@pytest.mark.parametrize("text_tokens, micros", [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_an_attempt_is_rounded_once_half_to_even(text_tokens: int, micros: int) -> None:
    prices = TokenPrices(text_input=Decimal("0.5"), image_input=Decimal(0), image_output=Decimal(0))
    route = priced(a_route("openai"), Prices(per_million_tokens=prices))
    assert cost(route, a_model(), Usage(text_input=text_tokens, image_output=1)).micros == micros


def test_a_price_by_image_alone_is_bounded_by_its_dearest_quality_and_size() -> None:
    prices = Prices(
        per_image={
            "low": {"1024x1024": Decimal("0.01"), "1536x1024": Decimal("0.02")},
            "medium": {"1024x1024": Decimal("0.03")},
            "high": {"1024x1024": Decimal("0.04")},
        }
    )
    route, model = priced(a_route("openai"), prices), untabled(a_model())
    assert upper_bound(route, model, NO_TEXT, 1) == 40_000
    assert upper_bound(route, model, replace(NO_TEXT, quality="low"), 1) == 20_000
    assert upper_bound(route, model, replace(NO_TEXT, quality="low", size="2048x2048"), 1) is None
    assert estimate(route, model, replace(NO_TEXT, quality="low", size="1536x1024"), 1) == 20_000


def test_a_model_without_a_quality_parameter_is_priced_by_the_table_it_has() -> None:
    capabilities = replace(a_model().capabilities, qualities=(), sizes=SizeRule(allowed=(Size(512, 512),)))
    model = replace(untabled(a_model()), capabilities=capabilities)
    route = priced(a_route("openai"), Prices(per_image={"standard": Decimal("0.04")}))
    assert estimate(route, model, NO_TEXT, 2) == 80_000
    assert upper_bound(route, model, NO_TEXT, 2) == 80_000
