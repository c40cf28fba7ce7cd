"""Reads `config/gateway.yaml` into a `Catalog`, or says everything that is wrong with it at once.

The shape and the range of each value are checked here; nothing after this module doubts the catalog.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from app.catalog.document import Document, Section, digest_form, suggestion
from app.catalog.entries import (
    Capabilities,
    Catalog,
    InputWay,
    Model,
    OnUnknownOutcome,
    Prices,
    Route,
    Routing,
    RoutingPolicy,
    SizeRule,
    Supports,
    TokenPrices,
    TokenRule,
    Upstream,
)
from app.catalog.errors import CatalogInvalid, Mistake
from app.domain.pictures import Size, parse_size

_VERSION: Final = 1
_UPSTREAM_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_KEY: Final = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")

# Nothing on the market is near these: a price above them is a slip of the decimal point or of the unit.
_DEAREST_MILLION_TOKENS: Final = Decimal(10_000)
_DEAREST_IMAGE: Final = Decimal(100)

_BLANK: Final = Upstream(
    name="",
    adapter="",
    base_url="",
    api_key_env=None,
    max_concurrency=1,
    requests_per_minute=None,
    images_per_minute=None,
    timeout_s=1.0,
)


def load_catalog(path: Path, adapters: Collection[str]) -> Catalog:
    """Read and check the catalog file; `adapters` are the names that an upstream's `adapter` may have.

    Raises:
        CatalogInvalid: with every mistake found, in the order of the file.
    """
    return parse_catalog(read_content(path), adapters, file=path.name)


def read_content(path: Path) -> bytes:
    """Read the catalog file as it is.

    Raises:
        CatalogInvalid: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as exc:
        fix = "Write the file, or let DARKROOM_CONFIG name another one."
        mistake = Mistake(
            file=str(path), line=None, key="", problem=f"cannot be read: {exc.strerror}.", fix=fix
        )
        raise CatalogInvalid((mistake,)) from exc


def parse_catalog(content: bytes, adapters: Collection[str], *, file: str) -> Catalog:
    """Check the content of a catalog file; `file` is what mistakes call it, `adapters` as for `load_catalog`.

    Raises:
        CatalogInvalid: with every mistake found, in the order of the file.
    """
    document = Document(file)
    root = document.parse(content)
    catalog = None if root is None else _catalog(root, adapters)
    if catalog is None or document.mistakes:
        raise CatalogInvalid(tuple(sorted(document.mistakes, key=lambda mistake: mistake.line or 0)))
    return catalog


def _catalog(root: Section, adapters: Collection[str]) -> Catalog:
    if root.integer("version", _VERSION, low=1, high=1_000_000, required=True) != _VERSION:
        root.note("version", "is not a version that this Darkroom reads.", f"Write `version: {_VERSION}`.")
    upstreams = _upstreams(root.section("upstreams", required=True), adapters)
    models = _models(root.section("models", required=True), upstreams)
    root.close()
    return Catalog(
        version=_digest(root),
        upstreams=upstreams,
        models=models,
        names={name: model.name for model in models.values() for name in (model.name, *model.aliases)},
    )


def _digest(root: Section) -> str:
    if root.document.mistakes:
        return ""
    canonical = json.dumps(digest_form(root.node), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _upstreams(section: Section | None, adapters: Collection[str]) -> dict[str, Upstream]:
    if section is None:
        return {}
    upstreams: dict[str, Upstream] = {}
    for name in section.names():
        if not _UPSTREAM_NAME.fullmatch(name):
            section.note(name, "is not a usable name.", "Use lower-case letters, digits, `.`, `_` and `-`.")
        entry = section.section(name, required=True)
        # A faulty upstream stays known by its name, so that its routes are not reported as well.
        upstreams[name] = replace(_BLANK, name=name) if entry is None else _upstream(name, entry, adapters)
    return upstreams


def _upstream(name: str, section: Section, adapters: Collection[str]) -> Upstream:
    adapter = section.text("adapter", required=True)
    if adapter and adapter not in adapters:
        known = ", ".join(sorted(adapters))
        fix = suggestion(adapter, adapters, otherwise=f"Write one of: {known}")
        section.note("adapter", f"{adapter!r} is not an adapter.", fix)
    upstream = Upstream(
        name=name,
        adapter=adapter,
        base_url=_base_url(section),
        api_key_env=_api_key_env(name, section),
        max_concurrency=section.integer("max_concurrency", 20, low=1, high=10_000),
        requests_per_minute=section.optional_integer("requests_per_minute", low=1, high=1_000_000),
        images_per_minute=section.optional_integer("images_per_minute", low=1, high=1_000_000),
        timeout_s=_seconds(section, "timeout_s", 300, most=3600),
        options=section.json("options"),
    )
    section.close()
    return upstream


def _base_url(section: Section) -> str:
    written = section.text("base_url", required=True)
    if not written:
        return ""
    try:
        parts = urlsplit(written)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        section.note("base_url", "is not an address.", "Write it like https://api.example.com/v1.")
        return ""
    if parts.username is not None or parts.password is not None:
        section.note(
            "base_url", "holds credentials.", "Take them out; the key belongs into `api_key: env:NAME`."
        )
    elif parts.query or parts.fragment or "?" in written or "#" in written:
        section.note("base_url", "has a query or a fragment.", "Keep only scheme, host, port and path.")
    elif not is_address or any(character.isspace() for character in written):
        section.note(
            "base_url", "is not an http or https address.", "Write it like https://api.example.com/v1."
        )
    return written.rstrip("/")


def _api_key_env(name: str, section: Section) -> str | None:
    if not section.has("api_key"):
        return None
    written = section.text("api_key")
    match = _KEY.fullmatch(written)
    if match is not None:
        return match[1]
    if written:
        # What stands there may be a real key, so it is not repeated.
        variable = re.sub(r"[^A-Z0-9]", "_", name.upper()) + "_API_KEY"
        fix = f"Put the key into an environment variable and write `api_key: env:{variable}`."
        section.note("api_key", "does not name an environment variable.", fix)
    return None


def _models(section: Section | None, upstreams: Mapping[str, Upstream]) -> dict[str, Model]:
    if section is None:
        return {}
    models: dict[str, Model] = {}
    taken: dict[str, str] = {name: name for name in section.names()}
    for name in section.names():
        if not _MODEL_NAME.fullmatch(name):
            section.note(name, "is not a usable name.", "Use letters, digits, `.`, `_`, `:`, `/` and `-`.")
        entry = section.section(name, required=True)
        if entry is not None:
            models[name] = _model(name, entry, upstreams, taken)
    return models


def _model(name: str, section: Section, upstreams: Mapping[str, Upstream], taken: dict[str, str]) -> Model:
    capabilities = _capabilities(section.section("capabilities", required=True))
    model = Model(
        name=name,
        aliases=_aliases(name, section, taken),
        owned_by=section.text("owned_by", "system"),
        created=section.integer("created", 0, low=0, high=10_000_000_000),
        shutdown_date=_date(section, "shutdown_date"),
        deprecation_date=_date(section, "deprecation_date"),
        capabilities=capabilities,
        tokens=_token_rule(section.section("tokens"), capabilities),
        routing=_routing(section.section("routing")),
        routes=_routes(section, upstreams, capabilities),
    )
    if model.deprecation_date is not None and (
        model.shutdown_date is None or model.deprecation_date > model.shutdown_date
    ):
        problem = "is a date after which no `shutdown_date` comes."
        section.note(
            "deprecation_date", problem, "Write the day of the announcement, and the later one of the end."
        )
    section.close()
    return model


def _aliases(name: str, section: Section, taken: dict[str, str]) -> tuple[str, ...]:
    aliases = section.words("aliases") or ()
    for alias in aliases:
        if not _MODEL_NAME.fullmatch(alias):
            problem = f"{alias!r} is not a usable name."
            section.note("aliases", problem, "Use letters, digits, `.`, `_`, `:`, `/` and `-`.")
        elif alias in taken:
            owner = taken[alias]
            section.note(
                "aliases", f"{alias!r} already names the model {owner!r}.", "Keep the name on one model."
            )
        else:
            taken[alias] = name
    return aliases


def _date(section: Section, key: str) -> date | None:
    written = section.date_text(key)
    if written is None:
        return None
    try:
        return date.fromisoformat(written)
    except ValueError:
        section.note(key, "is not a date.", "Write it as YEAR-MONTH-DAY, such as 2026-12-01.")
        return None


def _capabilities(section: Section | None) -> Capabilities:
    if section is None:
        return Capabilities(
            edits=False,
            sizes=SizeRule(),
            qualities=(),
            formats=(),
            backgrounds=(),
            moderations=(),
            input_fidelities=(),
            compression=False,
            max_n=1,
            max_prompt_chars=1,
            max_input_images=0,
            max_partial_images=0,
            mask=False,
        )
    edits = section.flag("edits")
    capabilities = Capabilities(
        edits=edits,
        sizes=_size_rule(section),
        qualities=section.words("qualities") or (),
        formats=section.words("formats") or (),
        backgrounds=section.words("backgrounds") or (),
        moderations=section.words("moderations") or (),
        input_fidelities=section.words("input_fidelities") or (),
        compression=section.flag("compression"),
        max_n=section.integer("max_n", 1, low=1, high=100),
        max_prompt_chars=section.integer("max_prompt_chars", 32_000, low=1, high=1_000_000),
        max_input_images=section.integer("max_input_images", 1 if edits else 0, low=0, high=100),
        max_partial_images=section.integer("max_partial_images", 0, low=0, high=10),
        mask=section.flag("mask"),
    )
    capabilities = replace(
        capabilities,
        transparent_formats=_subset(section, "transparent_formats", capabilities.formats)
        or capabilities.transparent_formats,
        compression_formats=_subset(section, "compression_formats", capabilities.formats)
        or capabilities.compression_formats,
    )
    if edits and capabilities.max_input_images == 0:
        section.note(
            "max_input_images", "is 0 although the model edits.", "Write 1 or more, or `edits: false`."
        )
    section.close()
    return capabilities


def _size_rule(section: Section) -> SizeRule:
    if not section.has("sizes"):
        section.note(
            "sizes", "is missing.", "List the sizes, or give the limits: `sizes: {max_edge_px: 3840}`."
        )
        return SizeRule()
    if not section.is_mapping("sizes"):
        return SizeRule(allowed=_sizes(section, "sizes"))
    limits = section.section("sizes")
    if limits is None:
        return SizeRule()
    max_ratio = limits.decimal("max_ratio", Decimal(0), low=Decimal(1), high=Decimal(1000))
    rule = SizeRule(
        multiple_of_px=limits.integer("multiple_of_px", 1, low=1, high=1024),
        max_edge_px=limits.optional_integer("max_edge_px", low=1, high=100_000),
        max_ratio=max_ratio or None,
        min_pixels=limits.optional_integer("min_pixels", low=1, high=1_000_000_000),
        max_pixels=limits.optional_integer("max_pixels", low=1, high=1_000_000_000),
    )
    if rule.max_edge_px is None and rule.max_pixels is None:
        limits.note(
            "", "sets no upper limit.", "Add `max_edge_px` or `max_pixels`; a hold is made from them."
        )
    if rule.min_pixels is not None and rule.max_pixels is not None and rule.min_pixels > rule.max_pixels:
        limits.note("min_pixels", "is above max_pixels.", "Swap the two.")
    limits.close()
    return rule


def _sizes(section: Section, key: str) -> tuple[Size, ...] | None:
    before = len(section.document.mistakes)
    words = section.words(key)
    if words is None:
        return None
    sizes: list[Size] = []
    for word in words:
        size = parse_size(word)
        if size is None:
            section.note(key, f"{word!r} is not a size.", "Write WIDTHxHEIGHT in pixels, such as 1024x1024.")
        else:
            sizes.append(size)
    if not words and len(section.document.mistakes) == before:
        section.note(key, "lists no size.", "Name at least one, or leave the key out.")
    return tuple(sizes)


def _subset(section: Section, key: str, known: tuple[str, ...]) -> tuple[str, ...] | None:
    words = section.words(key)
    for word in words or ():
        if known and word not in known:
            fix = suggestion(word, known, otherwise=f"Write some of: {', '.join(known)}")
            section.note(key, f"{word!r} is not among the model's own.", fix)
    return words


def _token_rule(section: Section | None, capabilities: Capabilities) -> TokenRule | None:
    if section is None:
        return None
    factors = _by_quality(section.section("factors"), capabilities)
    default = TokenRule()
    rule = TokenRule(
        factors=None if factors is None else {name: _tokens(factors, name) for name in factors.names()},
        table=_token_table(_by_quality(section.section("table"), capabilities)),
        partial_image=section.integer("partial_image", default.partial_image, low=0, high=1_000_000),
        input_image=section.integer("input_image", default.input_image, low=0, high=1_000_000),
        input_image_bound=section.integer(
            "input_image_bound", default.input_image_bound, low=0, high=1_000_000
        ),
    )
    if rule.factors is not None and rule.table is not None:
        section.note("", "has both factors and a table.", "Keep the one that the vendor publishes.")
    section.close()
    return rule


def _tokens(section: Section, key: str) -> int:
    return section.integer(key, 0, low=1, high=1_000_000, required=True)


def _token_table(section: Section | None) -> dict[str, dict[str, int]] | None:
    if section is None:
        return None
    table: dict[str, dict[str, int]] = {}
    for quality in section.names():
        row = section.section(quality, required=True)
        if row is not None:
            table[quality] = {size: _tokens(row, size) for size in _size_names(row)}
    return table


def _by_quality(section: Section | None, capabilities: Capabilities) -> Section | None:
    """A section keyed by quality, its keys checked against the model's own."""
    if section is not None and capabilities.qualities:
        for quality in section.names():
            if quality not in capabilities.qualities:
                known = ", ".join(capabilities.qualities)
                fix = suggestion(quality, capabilities.qualities, otherwise=f"Write one of: {known}")
                section.note(quality, "is not a quality of this model.", fix)
    return section


def _size_names(section: Section) -> tuple[str, ...]:
    """The keys of a section keyed by size, each checked."""
    for name in section.names():
        if parse_size(name) is None:
            section.note(name, "is not a size.", "Write WIDTHxHEIGHT in pixels, such as 1024x1024.")
    return section.names()


def _routing(section: Section | None) -> Routing:
    if section is None:
        return Routing(
            policy=RoutingPolicy.PRIORITY,
            max_attempts=4,
            deadline_s=600.0,
            on_unknown_outcome=OnUnknownOutcome.FAIL,
        )
    routing = Routing(
        policy=section.choice("policy", RoutingPolicy.PRIORITY, list(RoutingPolicy)),
        max_attempts=section.integer("max_attempts", 4, low=1, high=20),
        deadline_s=_seconds(section, "deadline_s", 600, most=86_400),
        on_unknown_outcome=section.choice(
            "on_unknown_outcome", OnUnknownOutcome.FAIL, list(OnUnknownOutcome)
        ),
    )
    section.close()
    return routing


def _seconds(section: Section, key: str, default: int, *, most: int) -> float:
    return float(section.decimal(key, Decimal(default), low=Decimal("0.1"), high=Decimal(most)))


def _routes(
    section: Section, upstreams: Mapping[str, Upstream], capabilities: Capabilities
) -> tuple[Route, ...]:
    routes: list[Route] = []
    for entry in section.sections("routes"):
        route = _route(entry, upstreams, capabilities)
        if any((route.upstream.name, route.model) == (other.upstream.name, other.model) for other in routes):
            entry.note("", "repeats an earlier route of this model.", "Keep one of the two.")
        routes.append(route)
    if not routes:
        section.note("routes", "names no route.", "Name at least one upstream that serves this model.")
    return tuple(routes)


def _route(section: Section, upstreams: Mapping[str, Upstream], capabilities: Capabilities) -> Route:
    name = section.text("upstream", required=True)
    upstream = upstreams.get(name)
    if name and upstream is None:
        known = ", ".join(upstreams) or "none yet"
        fix = suggestion(name, upstreams, otherwise=f"Add it under `upstreams`, or use one of: {known}")
        section.note("upstream", f"{name!r} is not an upstream.", fix)
    route = Route(
        upstream=upstream or replace(_BLANK, name=name),
        model=section.text("model", required=True),
        weight=section.integer("weight", 1, low=1, high=1000),
        supports=_supports(section.section("supports"), capabilities),
        prices=_prices(section.section("prices"), capabilities),
    )
    section.close()
    return route


def _supports(section: Section | None, capabilities: Capabilities) -> Supports:
    default = Supports()
    if section is None:
        return default
    supports = Supports(
        generations=section.flag("generations", default.generations),
        edits=section.flag("edits", default.edits),
        inputs=section.choice("inputs", default.inputs, list(InputWay)),
        mask=section.flag("mask", default.mask),
        stream=section.flag("stream", default.stream),
        max_n=section.optional_integer("max_n", low=1, high=100),
        sizes=_sizes(section, "sizes"),
        qualities=_subset(section, "qualities", capabilities.qualities),
        formats=_subset(section, "formats", capabilities.formats),
        backgrounds=_subset(section, "backgrounds", capabilities.backgrounds),
        compression=section.flag("compression", default.compression),
        moderation=section.flag("moderation", default.moderation),
        input_fidelity=section.flag("input_fidelity", default.input_fidelity),
        user=section.flag("user", default.user),
        safety_identifier=section.flag("safety_identifier", default.safety_identifier),
        unknown_parameters=section.flag("unknown_parameters", default.unknown_parameters),
    )
    if supports.mask and not supports.edits:
        section.note(
            "mask", "is true although the route does not edit.", "Add `edits: true`, or drop the mask."
        )
    section.close()
    return supports


def _prices(section: Section | None, capabilities: Capabilities) -> Prices:
    if section is None:
        return Prices()
    prices = Prices(
        per_million_tokens=_token_prices(section.section("per_million_tokens")),
        per_image=_image_prices(_by_quality(section.section("per_image"), capabilities)),
    )
    section.close()
    return prices


def _token_prices(section: Section | None) -> TokenPrices | None:
    if section is None:
        return None
    # What is left out would count as free, and an unknown price is never zero: these three are asked for.
    prices = TokenPrices(
        text_input=_price(section, "text_input", _DEAREST_MILLION_TOKENS),
        cached_text_input=_optional_price(section, "cached_text_input"),
        image_input=_price(section, "image_input", _DEAREST_MILLION_TOKENS),
        cached_image_input=_optional_price(section, "cached_image_input"),
        text_output=_optional_price(section, "text_output"),
        image_output=_price(section, "image_output", _DEAREST_MILLION_TOKENS),
    )
    section.close()
    return prices


def _image_prices(section: Section | None) -> dict[str, Decimal | Mapping[str, Decimal]] | None:
    if section is None:
        return None
    prices: dict[str, Decimal | Mapping[str, Decimal]] = {}
    for quality in section.names():
        row = section.section(quality) if section.is_mapping(quality) else None
        if row is None:
            prices[quality] = _price(section, quality, _DEAREST_IMAGE)
        else:
            prices[quality] = {size: _price(row, size, _DEAREST_IMAGE) for size in _size_names(row)}
    if not prices:
        section.note("", "lists no price.", "Name a price for each quality, or leave the key out.")
    return prices


def _price(section: Section, key: str, dearest: Decimal) -> Decimal:
    """US dollars; asked for, because nothing is free by being forgotten."""
    if not section.has(key):
        section.note(key, "has no price.", "Write US dollars, 0 for what is really free.")
    return section.decimal(key, Decimal(0), low=Decimal(0), high=dearest)


def _optional_price(section: Section, key: str) -> Decimal | None:
    return _price(section, key, _DEAREST_MILLION_TOKENS) if section.has(key) else None
