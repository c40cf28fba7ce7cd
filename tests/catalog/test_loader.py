"""Reading the catalog: the shipped file, a small one, and every way to get one wrong."""

import textwrap
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from app.catalog.entries import OnUnknownOutcome, RoutingPolicy
from app.catalog.errors import CatalogInvalid, Mistake
from app.catalog.loader import load_catalog
from app.catalog.pricing import estimate
from app.catalog.validation import validate
from app.domain.pictures import Size
from app.domain.requests import ImageRequest
from tests.catalog.shipped import ADAPTERS, FILE, shipped

SMALL = """\
version: 1
upstreams:
  shop:
    adapter: openai
    base_url: https://shop.example/v1/
    api_key: env:SHOP_KEY
models:
  sketch:
    aliases: [shop/sketch]
    capabilities:
      sizes: [512x512, 1024x1024]
      qualities: [low, high, auto]
    routes:
      - upstream: shop
        model: sketch-1
        prices:
          per_image: {low: 0.1, high: {512x512: 0.3, 1024x1024: 0.7}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.yaml"


def mistakes(file: Path, text: str) -> list[Mistake]:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogInvalid) as caught:
        load_catalog(file, ADAPTERS)
    return list(caught.value.mistakes)


def the_mistake(file: Path, text: str) -> Mistake:
    found = mistakes(file, text)
    assert len(found) == 1, found
    return found[0]


def test_the_shipped_file_has_the_names_of_the_contract() -> None:
    catalog = shipped()
    assert list(catalog.upstreams) == [
        "openai",
        "xairouter",
        "therouter",
        "vercel",
        "imarouter",
        "sandbox",
    ]
    for name in ("gpt-image-2", "openai/gpt-image-2", "gpt-image-2-2026-04-21"):
        model = catalog.model(name)
        assert model is not None
        assert [route.upstream.name for route in model.routes] == [
            "openai",
            "xairouter",
            "therouter",
            "vercel",
            "imarouter",
        ]
    assert catalog.model("dall-e-3") is None


def test_the_shipped_file_never_routes_to_the_sandbox() -> None:
    names = {route.upstream.name for model in shipped().models.values() for route in model.routes}
    assert "sandbox" not in names


def test_the_shipped_file_keeps_every_key_in_the_environment() -> None:
    assert {upstream.name: upstream.api_key_env for upstream in shipped().upstreams.values()} == {
        "openai": "OPENAI_API_KEY",
        "xairouter": "XAIROUTER_API_KEY",
        "therouter": "THE_ROUTER_API_KEY",
        "vercel": "AI_GATEWAY_API_KEY",
        "imarouter": "IMAROUTER_API_KEY",
        "sandbox": None,
    }


def test_the_shipped_file_knows_which_models_end_and_where_the_ended_one_is_still_sold() -> None:
    ends = {name: model.shutdown_date for name, model in shipped().models.items()}
    assert ends == {
        "gpt-image-2": None,
        "gpt-image-1.5": date(2026, 12, 1),
        "gpt-image-1": date(2026, 10, 23),
        "gpt-image-1-mini": date(2026, 12, 1),
        "chatgpt-image-latest": date(2026, 12, 1),
    }
    assert [route.upstream.name for route in shipped().models["gpt-image-1"].routes] == ["therouter"]


def test_the_shipped_unpriced_routes_are_known() -> None:
    unpriced = {
        (route.upstream.name, route.model)
        for model in shipped().models.values()
        for route in model.routes
        if not route.prices.is_known
    }
    assert unpriced == {
        ("openai", "chatgpt-image-latest"),
        ("therouter", "openai/gpt-image-1.5"),
        ("therouter", "openai/gpt-image-1-mini"),
        ("vercel", "openai/gpt-image-1.5"),
        ("vercel", "openai/gpt-image-1-mini"),
        ("imarouter", "gpt-image-2"),
    }


def test_a_small_file_is_filled_with_cautious_defaults(file: Path) -> None:
    file.write_text(SMALL, encoding="utf-8")
    catalog = load_catalog(file, ADAPTERS)
    upstream = catalog.upstreams["shop"]
    assert (upstream.base_url, upstream.api_key_env) == ("https://shop.example/v1", "SHOP_KEY")
    assert (upstream.max_concurrency, upstream.timeout_s, upstream.requests_per_minute) == (20, 300.0, None)
    model = catalog.model("shop/sketch")
    assert model is not None
    assert model.name == "sketch"
    assert model.capabilities.sizes.allowed == (Size(512, 512), Size(1024, 1024))
    assert (model.capabilities.edits, model.capabilities.max_n, model.capabilities.formats) == (False, 1, ())
    assert (model.routing.policy, model.routing.max_attempts) == (RoutingPolicy.PRIORITY, 4)
    assert (model.routing.deadline_s, model.routing.on_unknown_outcome) == (600.0, OnUnknownOutcome.FAIL)
    assert not model.routes[0].supports.unknown_parameters


def test_prices_are_exact_decimals(file: Path) -> None:
    file.write_text(SMALL, encoding="utf-8")
    prices = load_catalog(file, ADAPTERS).models["sketch"].routes[0].prices.per_image
    assert prices == {"low": Decimal("0.1"), "high": {"512x512": Decimal("0.3"), "1024x1024": Decimal("0.7")}}


def test_options_are_handed_on_as_they_are(file: Path) -> None:
    options = "    options: {dialect: jobs, delay_s: 0.5, tries: 3, strict: true, note: null, list: [a, 1]}\n"
    file.write_text(SMALL.replace("models:\n", options + "models:\n"), encoding="utf-8")
    assert load_catalog(file, ADAPTERS).upstreams["shop"].options == {
        "dialect": "jobs",
        "delay_s": 0.5,
        "tries": 3,
        "strict": True,
        "note": None,
        "list": ["a", 1],
    }


def test_the_version_follows_the_content_and_not_its_form(file: Path) -> None:
    file.write_text(SMALL, encoding="utf-8")
    first = load_catalog(file, ADAPTERS).version
    reformed = SMALL.replace("version: 1\n", "") + "version:   1   # moved\n"
    file.write_text(reformed.replace("[512x512, 1024x1024]", "\n        - 512x512\n        - 1024x1024"))
    assert load_catalog(file, ADAPTERS).version == first
    file.write_text(SMALL.replace("0.7", "0.8"), encoding="utf-8")
    assert load_catalog(file, ADAPTERS).version != first


def test_a_new_model_with_new_words_needs_only_configuration(file: Path) -> None:
    file.write_text(
        textwrap.dedent(
            """\
            version: 1
            upstreams:
              local: {adapter: openai, base_url: "http://127.0.0.1:9000/v1"}
            models:
              gpt-image-2.5-flare:
                capabilities:
                  sizes: {max_edge_px: 4096}
                  qualities: [low, medium, high, xhigh, max, auto]
                  formats: [png, gif, svg]
                tokens: {factors: {low: 16, medium: 24, high: 48, xhigh: 64, max: 96}}
                routes:
                  - upstream: local
                    model: flare
                    prices: {per_million_tokens: {text_input: 1, image_input: 1, image_output: 10}}
            """
        ),
        encoding="utf-8",
    )
    model = load_catalog(file, ADAPTERS).models["gpt-image-2.5-flare"]
    request = ImageRequest(
        model=model.name, prompt="fire", quality="max", size="1024x1024", output_format="svg"
    )
    validate(request, model)
    assert estimate(model.routes[0], model, request, 1) == 7024 * 10 + 1


@pytest.mark.parametrize(
    "old, new, line, key, problem, fix",
    [
        ("version: 1", "version: 2", 1, "version", "not a version", "Write `version: 1`."),
        ("version: 1", "version: one", 1, "version", "not a whole number", "from 1"),
        ("version: 1\n", "", 1, "version", "is missing", "Add `version:`."),
        ("adapter: openai", "adaptor: openai", 4, "upstreams.shop.adaptor", "unknown key", "'adapter'?"),
        ("adapter: openai", "adapter: opnai", 4, "upstreams.shop.adapter", "not an adapter", "'openai'?"),
        ("adapter: openai", "adapter: 7", 4, "upstreams.shop.adapter", "`7`, not a text", "quotes"),
        (
            "https://shop.example/v1/",
            "ftp://shop.example",
            5,
            "upstreams.shop.base_url",
            "not an http",
            "https://",
        ),
        (
            "https://shop.example/v1/",
            "shop.example/v1",
            5,
            "upstreams.shop.base_url",
            "not an http",
            "https://",
        ),
        ("https://shop.example/v1/", "https://", 5, "upstreams.shop.base_url", "not an http", "https://"),
        (
            "https://shop.example/v1/",
            "http://x:99999",
            5,
            "upstreams.shop.base_url",
            "not an address",
            "https://",
        ),
        (
            "https://shop.example/v1/",
            "http://[::1",
            5,
            "upstreams.shop.base_url",
            "not an address",
            "https://",
        ),
        ("//shop", "//me:pw@shop", 5, "upstreams.shop.base_url", "credentials", "env:NAME"),
        ("/v1/", "/v1?key=1", 5, "upstreams.shop.base_url", "a query", "Keep only"),
        ("env:SHOP_KEY", "sk-secret", 6, "upstreams.shop.api_key", "does not name", "env:SHOP_API_KEY"),
        ("env:SHOP_KEY", "'env:'", 6, "upstreams.shop.api_key", "does not name", "env:SHOP_API_KEY"),
        (
            "    api_key",
            "    max_concurrency: 0\n    api_key",
            6,
            "upstreams.shop.max_concurrency",
            "0",
            "from 1",
        ),
        ("    api_key", "    timeout_s: 0\n    api_key", 6, "upstreams.shop.timeout_s", "is 0", "from 0.1"),
        (
            "    api_key",
            "    timeout_s: .inf\n    api_key",
            6,
            "upstreams.shop.timeout_s",
            "not a number",
            "digits",
        ),
        ("    api_key", "    timeout_s: '9'\n    api_key", 6, "upstreams.shop.timeout_s", "a text", "quotes"),
        (
            "    api_key",
            "    options: [a]\n    api_key",
            6,
            "upstreams.shop.options",
            "a list, not",
            "key: value",
        ),
        (
            "aliases: [shop/sketch]",
            "aliases: [sketch]",
            9,
            "models.sketch.aliases",
            "already names",
            "one model",
        ),
        ("aliases: [shop/sketch]", "aliases: [a, a]", 9, "models.sketch.aliases", "'a' twice", "Keep one"),
        ("aliases: [shop/sketch]", "aliases: shop", 9, "models.sketch.aliases", "a text, not a list", "list"),
        (
            "aliases: [shop/sketch]",
            "shutdown_date: soon",
            9,
            "models.sketch.shutdown_date",
            "not a date",
            "2026-12",
        ),
        ("512x512, 1024", "512, 1024", 11, "models.sketch.capabilities.sizes", "`512`", "words"),
        (
            "512x512, 1024",
            "512X512, 1024",
            11,
            "models.sketch.capabilities.sizes",
            "'512X512'",
            "WIDTHxHEIGHT",
        ),
        (
            "[512x512, 1024x1024]",
            "{multiple_of_px: 8}",
            11,
            "models.sketch.capabilities.sizes",
            "no upper",
            "max_edge",
        ),
        (
            "[512x512, 1024x1024]",
            "[]",
            11,
            "models.sketch.capabilities.sizes",
            "lists no size",
            "at least one",
        ),
        (
            "      sizes: [512x512, 1024x1024]\n",
            "",
            11,
            "models.sketch.capabilities.sizes",
            "missing",
            "List",
        ),
        (
            "upstream: shop\n",
            "upstream: shp\n",
            14,
            "models.sketch.routes[0].upstream",
            "not an upstream",
            "'shop'?",
        ),
        ("model: sketch-1", "model: 1", 15, "models.sketch.routes[0].model", "`1`, not a text", "quotes"),
        (
            "model: sketch-1",
            "model: s\n        weight: 0",
            16,
            "models.sketch.routes[0].weight",
            "is 0",
            "from 1",
        ),
        (
            "model: sketch-1",
            "model: s\n        supports: {qualities: [hgih]}",
            16,
            "models.sketch.routes[0].supports.qualities",
            "'hgih'",
            "'high'?",
        ),
        (
            "model: sketch-1",
            "model: s\n        supports: {mask: true}",
            16,
            "models.sketch.routes[0].supports.mask",
            "does not edit",
            "edits: true",
        ),
        ("low: 0.1", "low: -0.1", 17, "models.sketch.routes[0].prices.per_image.low", "is -0.1", "from 0"),
        ("low: 0.1", "low: '0.1'", 17, "models.sketch.routes[0].prices.per_image.low", "a text", "quotes"),
        (
            "low: 0.1",
            "low: 1e-3",
            17,
            "models.sketch.routes[0].prices.per_image.low",
            "not a number",
            "digits",
        ),
        ("low: 0.1", "low: ~", 17, "models.sketch.routes[0].prices.per_image.low", "no price", "0 for"),
        (
            "low: 0.1",
            "lwo: 0.1",
            17,
            "models.sketch.routes[0].prices.per_image.lwo",
            "not a quality",
            "'low'?",
        ),
        (
            "512x512: 0.3",
            "small: 0.3",
            17,
            "models.sketch.routes[0].prices.per_image.high.small",
            "a size",
            "WIDTHx",
        ),
        (
            "per_image: {low: 0.1, high: {512x512: 0.3, 1024x1024: 0.7}}",
            "per_million_tokens: {text_input: 1, image_output: 2}",
            17,
            "models.sketch.routes[0].prices.per_million_tokens.image_input",
            "no price",
            "0 for",
        ),
        (
            "    routes:",
            "    routing: {policy: priorty}\n    routes:",
            13,
            "models.sketch.routing.policy",
            "'priorty'",
            "Did you mean 'priority'?",
        ),
        (
            "    routes:",
            "    routing: {policy: cheap}\n    routes:",
            13,
            "models.sketch.routing.policy",
            "'cheap'",
            "'ch",
        ),
        (
            "    routes:",
            "    routing: {deadline_s: 0}\n    routes:",
            13,
            "models.sketch.routing.deadline_s",
            "0",
            "0.1",
        ),
        (
            "    routes:",
            "    routing: {max_attempts: 99}\n    routes:",
            13,
            "models.sketch.routing.max_attempts",
            "99",
            "20",
        ),
        (
            "    routes:",
            "    tokens: {factors: {low: 1.5}}\n    routes:",
            13,
            "models.sketch.tokens.factors.low",
            "1.5",
            "1 to",
        ),
        ("    routes:", "    <<: {a: 1}\n    routes:", 13, "models.sketch.<<", "unknown key", "alias"),
        (
            "      qualities",
            "      edits: yes\n      qualities",
            12,
            "models.sketch.capabilities.edits",
            "claim",
            "true or",
        ),
        ("  sketch:", "  'a sketch':", 8, "models.a sketch", "not a usable name", "letters"),
    ],
)
def test_a_mistake_is_reported_with_its_place_and_its_fix(
    file: Path, old: str, new: str, line: int, key: str, problem: str, fix: str
) -> None:
    assert old in SMALL
    found = [mistake for mistake in mistakes(file, SMALL.replace(old, new, 1)) if mistake.key == key]
    assert len(found) == 1
    assert (found[0].file, found[0].line) == ("gateway.yaml", line)
    assert problem in found[0].problem
    assert fix in found[0].fix


def test_a_key_that_was_written_out_is_not_repeated_in_its_mistake(file: Path) -> None:
    for leak in (SMALL.replace("env:SHOP_KEY", "sk-secret"), SMALL.replace("//shop", "//me:sk-secret@shop")):
        assert "sk-secret" not in str(the_mistake(file, leak))


def test_a_key_written_twice_is_a_mistake(file: Path) -> None:
    mistake = the_mistake(file, SMALL.replace("    api_key", "    adapter: openai\n    api_key"))
    assert (mistake.line, mistake.key) == (6, "upstreams.shop.adapter")
    assert "line 4" in mistake.problem


def test_an_alias_of_one_model_cannot_name_another(file: Path) -> None:
    second = SMALL[SMALL.index("  sketch:") :].replace("  sketch:", "  other:")
    mistake = the_mistake(file, SMALL + second)
    assert mistake.key == "models.other.aliases"
    assert "'shop/sketch' already names the model 'sketch'" in mistake.problem


def test_the_same_route_twice_is_a_mistake(file: Path) -> None:
    mistake = the_mistake(file, SMALL + "      - {upstream: shop, model: sketch-1}\n")
    assert (mistake.line, mistake.key) == (18, "models.sketch.routes[1]")


def test_a_model_without_routes_is_a_mistake(file: Path) -> None:
    mistake = the_mistake(file, SMALL[: SMALL.index("    routes:")] + "    routes: []\n")
    assert mistake.key == "models.sketch.routes"


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(file: Path) -> None:
    text = (
        SMALL.replace("adapter: openai", "adapter: opnai")
        .replace("env:SHOP_KEY", "literal")
        .replace("qualities", "qualitys")
        .replace("upstream: shop", "upstream: shpo")
        .replace("low: 0.1", "low: -1")
    )
    found = mistakes(file, text)
    assert [mistake.line for mistake in found] == [4, 6, 12, 14, 17]
    assert "\n" not in str(found[0])
    assert str(found[0]).startswith("gateway.yaml:4: upstreams.shop.adapter: 'opnai' is not an adapter.")


def test_a_faulty_upstream_is_not_reported_again_at_its_routes(file: Path) -> None:
    mistake = the_mistake(file, SMALL.replace("  shop:\n    adapter: openai\n", "  shop:\n    adapter: {}\n"))
    assert mistake.key == "upstreams.shop.adapter"


@pytest.mark.parametrize(
    "text, line, problem",
    [
        ("version: 1\nmodels: [\n", 3, "not valid YAML"),
        ("version: 1\n\tmodels: 2\n", 2, "not valid YAML"),
        ("version: 1\n---\nversion: 1\n", 2, "not valid YAML"),
        ("version: *nowhere\n", 1, "not valid YAML"),
        ("version: \x07\n", 1, "not valid YAML"),
        ("- 1\n", 1, "not a mapping"),
        ("", 1, "not a mapping"),
        ("version: &a {x: *a}\n", 1, "nested without end"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
                for old, new in zip("abcdef", "bcdefg", strict=True)
            ),
            1,
            "far too large",
        ),
    ],
)
def test_what_is_no_catalog_at_all_is_one_mistake(file: Path, text: str, line: int, problem: str) -> None:
    mistake = the_mistake(file, text)
    assert mistake.line == line
    assert problem in mistake.problem


def test_a_file_that_is_not_utf8_names_the_line(file: Path) -> None:
    file.write_bytes(b"version: 1\n# caf\xe9\n")
    with pytest.raises(CatalogInvalid) as caught:
        load_catalog(file, ADAPTERS)
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.problem) == (2, "is not UTF-8 text.")


def test_a_missing_file_names_the_setting(file: Path) -> None:
    with pytest.raises(CatalogInvalid) as caught:
        load_catalog(file, ADAPTERS)
    (mistake,) = caught.value.mistakes
    assert mistake.line is None
    assert "DARKROOM_CONFIG" in mistake.fix
    assert str(file) in str(mistake)


def test_the_shipped_file_ends_up_in_no_mistake_about_an_unknown_adapter_only() -> None:
    with pytest.raises(CatalogInvalid) as caught:
        load_catalog(FILE, {"openai", "sandbox", "xairouter", "vercel", "imarouter"})
    assert [mistake.key for mistake in caught.value.mistakes] == ["upstreams.therouter.adapter"]
