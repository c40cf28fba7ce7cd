"""docker-compose.yml as compose reads it: merged, and with the variables of an environment filled in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = ROOT / "docker-compose.yml"
OURS: Final = "darkroom"
"""The image of Darkroom's own services."""

_VARIABLE: Final = re.compile(r"\$(?:(\$)|\{(\w+)(?::([?-])([^}]*))?\})")
_YAML: Final = YAML(typ="safe")


class VariableMissing(Exception):
    """A variable has no value and no default; the message is the one that the file gives."""


def mandatory() -> dict[str, str]:
    """The variables without which compose refuses to start -> what it says then."""
    text = FILE.read_text(encoding="utf-8")
    return {name: said for _, name, kind, said in _VARIABLE.findall(text) if kind == "?"}


def used_variables() -> set[str]:
    """Every variable that the file asks its environment for."""
    return {name for _, name, _, _ in _VARIABLE.findall(FILE.read_text(encoding="utf-8")) if name}


def made_up_secrets() -> dict[str, str]:
    """An environment that has what the file insists on, each value another one."""
    return {name: f"{number}{name.lower()}-Zq7" * 4 for number, name in enumerate(sorted(mandatory()))}


def document(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The whole file, with made-up secrets unless an environment is given."""
    values = made_up_secrets() if environment is None else environment
    read: dict[str, Any] = _filled(_YAML.load(FILE), values)
    return read


def services() -> dict[str, dict[str, Any]]:
    """All services by name."""
    found: dict[str, dict[str, Any]] = document()["services"]
    return found


def own_services() -> dict[str, dict[str, Any]]:
    """The services that run Darkroom."""
    return {name: service for name, service in services().items() if service["image"] == OURS}


def seconds(text: str) -> int:
    """The seconds of a duration such as `340s`."""
    assert text.endswith("s")
    return int(text.removesuffix("s"))


def size_bytes(text: str) -> int:
    """The bytes of a size such as `3g`."""
    return int(text[:-1]) << 10 * " kmg".index(text[-1])


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    match value:
        case dict():
            return {key: _filled(item, values) for key, item in value.items()}
        case list():
            return [_filled(item, values) for item in value]
        case str():
            return _VARIABLE.sub(lambda found: _value(found, values), value)
        case _:
            return value


def _value(found: re.Match[str], values: Mapping[str, str]) -> str:
    is_dollar, name, kind, text = found.groups()
    if is_dollar:
        return "$"
    if kind == "?" and not values.get(name):
        raise VariableMissing(text)
    return values.get(name) or (text if kind == "-" else "")
