"""What pictures cost: output tokens, estimates, upper bounds for holds, and the cost of an attempt that was made.

Everything is exact until one rounding, half to even, to micro-dollars. What is assumed where a request leaves a
choice to the vendor is named by the constants below.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from app.catalog.entries import Model, Prices, Route, TokenPrices, TokenRule
from app.catalog.sizes import AUTO, largest_size
from app.domain.money import Certainty, micros
from app.domain.pictures import Size, parse_size
from app.domain.requests import ImageRequest
from app.domain.results import Usage

ASSUMED_QUALITY: Final = "medium"
"""The quality an estimate is made for when the request leaves it open."""
ASSUMED_SIZE: Final = Size(1024, 1024)
"""The size an estimate is made for when the request leaves it open."""
CHARS_PER_TEXT_TOKEN: Final = 4
"""Of a prompt, in an estimate; an upper bound counts a token for each byte of its UTF-8 form."""

_PER_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an attempt cost, and how sure the books are of it."""

    micros: int
    """Micro-dollars; 0 when `certainty` is `unpriced`."""
    certainty: Certainty


def output_tokens(rule: TokenRule, quality: str, size: Size) -> int | None:
    """Output tokens of one picture; None when the rule does not cover this quality and size.

    Source: upstreams.md 1.14; a table as OpenAI's guide prints it, or the formula that reproduces the recorded
    usages of gpt-image-2, here in integers.
    """
    if rule.table is not None:
        return rule.table.get(quality, {}).get(str(size))
    factor = None if rule.factors is None else rule.factors.get(quality)
    if factor is None:
        return None
    long, short = max(size), min(size)
    other_side = (2 * factor * short + long) // (2 * long)
    return -(-factor * other_side * (2_000_000 + size.pixels) // 4_000_000)


def estimate(route: Route, model: Model, request: ImageRequest, pictures: int) -> int | None:
    """Micro-dollars that `pictures` of this very request will probably cost; None when the route is unpriced.

    By the formula's tokens at token prices where both are known, else by the price of an image. Quality and size
    that the request leaves open are taken as `ASSUMED_QUALITY` and `ASSUMED_SIZE`, or as near as the model has them.
    """
    usd = _estimate_usd(route, model, request, pictures)
    return None if usd is None else micros(usd)


def upper_bound(route: Route, model: Model, request: ImageRequest, pictures: int) -> int | None:
    """Micro-dollars that a hold must cover for `pictures` of this request; None when that is not known.

    What the request leaves open is taken at its dearest: every quality and the largest size that the model makes,
    one text token for each byte of the prompt, `TokenRule.input_image_bound` for each input picture. Where a vendor
    publishes a price by token and one by image, the higher one counts.
    """
    bounds = (
        _upper_bound_by_tokens(route, model, request, pictures),
        _upper_bound_by_image(route, model, request, pictures),
    )
    known = [bound for bound in bounds if bound is not None]
    return micros(max(known)) if known else None


def actual(
    route: Route,
    model: Model,
    request: ImageRequest,
    pictures: int,
    *,
    usage: Usage | None,
    cost_usd: Decimal | None,
    size: str | None = None,
    quality: str | None = None,
) -> Cost:
    """What an attempt that made `pictures` cost.

    The first that is known counts: reported usage at token prices; the amount that the vendor says it charged
    (`cost_usd`, which also prices an unpriced route); the formula's tokens at token prices; the price of an image.
    The first two are `actual`, the others `estimated`, for the `size` and `quality` that the vendor reports having
    chosen. A usage without output tokens is no usage: pictures were made.
    """
    prices = route.prices.per_million_tokens
    if prices is not None and usage is not None and usage.output_tokens > 0:
        return Cost(micros=micros(_usage_usd(prices, usage)), certainty=Certainty.ACTUAL)
    if cost_usd is not None:
        return Cost(micros=micros(cost_usd), certainty=Certainty.ACTUAL)
    resolved = replace(request, size=size or request.size, quality=quality or request.quality)
    # Left to itself a vendor may choose a size that no table lists; then the request's own terms are what is known.
    for terms in (resolved, request):
        usd = _estimate_usd(route, model, terms, pictures)
        if usd is not None:
            return Cost(micros=micros(usd), certainty=Certainty.ESTIMATED)
    return Cost(micros=0, certainty=Certainty.UNPRICED)


def _usage_usd(prices: TokenPrices, usage: Usage) -> Decimal:
    """Reported tokens at their prices. A rate that is not published is taken as the full or the dearer one."""
    cached_text = prices.text_input if prices.cached_text_input is None else prices.cached_text_input
    cached_image = prices.image_input if prices.cached_image_input is None else prices.cached_image_input
    text_output = prices.image_output if prices.text_output is None else prices.text_output
    total = (
        (usage.text_input - usage.cached_text_input) * prices.text_input
        + usage.cached_text_input * cached_text
        + (usage.image_input - usage.cached_image_input) * prices.image_input
        + usage.cached_image_input * cached_image
        + usage.text_output * text_output
        + usage.image_output * prices.image_output
    )
    return total / _PER_MILLION


def _estimate_usd(route: Route, model: Model, request: ImageRequest, pictures: int) -> Decimal | None:
    quality = _assumed_quality(route, model, request)
    size = _assumed_size(model, request)
    token_prices = route.prices.per_million_tokens
    if token_prices is not None and model.tokens is not None:
        tokens = output_tokens(model.tokens, quality, size)
        if tokens is not None:
            usage = Usage(
                text_input=-(-len(request.prompt) // CHARS_PER_TEXT_TOKEN),
                image_input=_inputs(request) * model.tokens.input_image,
                image_output=pictures * (tokens + _partial_tokens(route, model.tokens, request)),
            )
            return _usage_usd(token_prices, usage)
    price = _image_price(route.prices, quality, size)
    return None if price is None else pictures * price


def _upper_bound_by_tokens(
    route: Route, model: Model, request: ImageRequest, pictures: int
) -> Decimal | None:
    token_prices, rule = route.prices.per_million_tokens, model.tokens
    if token_prices is None or rule is None:
        return None
    dearest = 0
    for quality in _possible_qualities(route, model, request):
        for size in _possible_sizes(model, request):
            tokens = output_tokens(rule, quality, size)
            if tokens is None:
                return None
            dearest = max(dearest, tokens)
    if dearest == 0:
        return None
    usage = Usage(
        text_input=len(request.prompt.encode("utf-8", "surrogatepass")),
        image_input=_inputs(request) * rule.input_image_bound,
        image_output=pictures * (dearest + _partial_tokens(route, rule, request)),
    )
    return _usage_usd(token_prices, usage)


def _upper_bound_by_image(route: Route, model: Model, request: ImageRequest, pictures: int) -> Decimal | None:
    dearest: Decimal | None = None
    for quality in _possible_qualities(route, model, request):
        row = (route.prices.per_image or {}).get(quality)
        if row is not None and not isinstance(row, Decimal):
            row = max(row.values(), default=None) if _is_open(request.size) else row.get(request.size or AUTO)
        if row is None:
            return None
        dearest = row if dearest is None else max(dearest, row)
    return None if dearest is None else pictures * dearest


def _image_price(prices: Prices, quality: str, size: Size) -> Decimal | None:
    row = (prices.per_image or {}).get(quality)
    return row if row is None or isinstance(row, Decimal) else row.get(str(size))


def _possible_qualities(route: Route, model: Model, request: ImageRequest) -> Sequence[str]:
    """Every quality that this request may come out at; those with a price where the model has no such parameter."""
    if request.quality is not None and request.quality != AUTO:
        return (request.quality,)
    named = route.supports.qualities or model.capabilities.qualities
    return [quality for quality in named if quality != AUTO] or list(route.prices.per_image or {})


def _possible_sizes(model: Model, request: ImageRequest) -> Sequence[Size]:
    size = None if request.size is None else parse_size(request.size)
    if size is not None:
        return (size,)
    rule = model.capabilities.sizes
    return rule.allowed if rule.allowed is not None else (largest_size(rule),)


def _assumed_quality(route: Route, model: Model, request: ImageRequest) -> str:
    possible = _possible_qualities(route, model, request)
    if not possible or ASSUMED_QUALITY in possible:
        return ASSUMED_QUALITY
    return possible[len(possible) // 2]


def _assumed_size(model: Model, request: ImageRequest) -> Size:
    possible = _possible_sizes(model, request)
    if ASSUMED_SIZE in possible:
        return ASSUMED_SIZE
    is_open = request.size is None or parse_size(request.size) is None
    if is_open and model.capabilities.sizes.allowed is None:
        return min(ASSUMED_SIZE, possible[0], key=lambda size: size.pixels)
    return possible[0]


def _inputs(request: ImageRequest) -> int:
    """Pictures that count as input tokens; a mask is taken for one, which nobody has published."""
    return len(request.images) + (request.mask is not None)


def _partial_tokens(route: Route, rule: TokenRule, request: ImageRequest) -> int:
    if not (request.stream and route.supports.stream):
        return 0
    return (request.partial_images or 0) * rule.partial_image


def _is_open(value: str | None) -> bool:
    return value is None or value == AUTO
