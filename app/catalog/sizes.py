"""Which sizes a model makes, decided from its `SizeRule` alone."""

from math import isqrt
from typing import Final

from app.catalog.entries import SizeRule
from app.catalog.errors import UnusableSetting
from app.domain.errors import InvalidValue
from app.domain.pictures import Size, parse_size

AUTO: Final = "auto"
"""The word that leaves a choice to the vendor."""


def check_size(text: str, rule: SizeRule) -> None:
    """Check a `size` as the client wrote it.

    Raises:
        InvalidValue: it is not a size, or not on the model's list.
        UnusableSetting: it breaks one of the model's limits; the first in the order of upstreams.md 1.5.
    """
    if text == AUTO:
        return
    size = parse_size(text)
    if rule.allowed is not None:
        if size not in rule.allowed:
            raise InvalidValue(
                f"Invalid value: {text!r}. Supported values are: {_listed(rule)}.", param="size"
            )
        return
    if size is None:
        message = (
            f"Invalid value: {text!r}. Supported values are: 'auto' and 'WIDTHxHEIGHT', such as '1024x1024'."
        )
        raise InvalidValue(message, param="size")
    problem = _broken_limit(size, rule)
    if problem is not None:
        raise UnusableSetting(f"Invalid size '{text}'. {problem}", param="size")


def largest_size(rule: SizeRule) -> Size:
    """The size with the most pixels that the model makes; with limits, the largest square."""
    if rule.allowed is not None:
        return max(rule.allowed, key=lambda size: size.pixels)
    edges = [rule.max_edge_px] if rule.max_edge_px is not None else []
    if rule.max_pixels is not None:
        edges.append(isqrt(rule.max_pixels))
    edge = min(edges)
    return Size(edge, edge)


def enumerate_values(values: tuple[str, ...]) -> str:
    """Write values as OpenAI's messages do: `'low', 'medium', and 'high'`."""
    quoted = [f"'{value}'" for value in values]
    if len(quoted) < 3:
        return " and ".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


def _listed(rule: SizeRule) -> str:
    return enumerate_values((*(str(size) for size in rule.allowed or ()), AUTO))


def _broken_limit(size: Size, rule: SizeRule) -> str | None:
    long, short = max(size), min(size)
    if size.width_px % rule.multiple_of_px or size.height_px % rule.multiple_of_px:
        return f"Width and height must both be divisible by {rule.multiple_of_px}."
    if rule.max_edge_px is not None and long > rule.max_edge_px:
        return f"The longest edge must be less than or equal to {rule.max_edge_px}."
    if rule.max_ratio is not None and long > rule.max_ratio * short:
        ratio = format(rule.max_ratio.normalize(), "f")
        return f"The aspect ratio must be between 1:{ratio} and {ratio}:1."
    if rule.min_pixels is not None and size.pixels < rule.min_pixels:
        return "Requested resolution is below the current minimum pixel budget."
    if rule.max_pixels is not None and size.pixels > rule.max_pixels:
        return "Requested resolution exceeds the current pixel budget."
    return None
