"""Limits of teams and keys, as they are written on a command line and shown. What they may be, the gateway knows."""

from collections.abc import Iterable
from typing import Any

from app.cli.errors import UsageMistake
from app.kit.json import Json, JsonObject


def read_limits(given: Iterable[str] | None) -> JsonObject:
    """Read `name=value` pairs; `none` becomes null, which lifts a limit.

    Raises:
        UsageMistake: one has no equals sign.
    """
    limits: JsonObject = {}
    for pair in given or ():
        name, mark, value = pair.partition("=")
        if not mark:
            raise UsageMistake(
                f"{pair!r} is no limit. Write NAME=VALUE, such as --limit budget_month_usd=100."
            )
        limits[name] = _value(name, value)
    return limits


def limits_text(limits: Any) -> str | None:
    """Limits as they would be written on a command line; None when there are none."""
    pairs = [f"{name}={_text(value)}" for name, value in (limits or {}).items()]
    return " ".join(pairs) or None


def _value(name: str, value: str) -> Json:
    if value == "none":
        return None
    if name == "allowed_models":
        return [item.strip() for item in value.split(",")]
    return int(value) if value.isdecimal() else value


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
