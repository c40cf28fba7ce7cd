"""Whatever the documentation names exists: links, commands, make's targets, variables, endpoints, errors, settings."""

import ast
import dataclasses
import importlib
import pkgutil
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import typer

import app
from app.api import errors as api_errors
from app.catalog.entries import (
    Capabilities,
    Catalog,
    Model,
    Prices,
    Route,
    Routing,
    SizeRule,
    Supports,
    TokenPrices,
    TokenRule,
    Upstream,
)
from app.catalog.loader import load_catalog
from app.cli.main import app as command
from app.domain.errors import GatewayError
from app.settings import Settings
from app.upstreams.registry import adapter_names
from tests.docs.conftest import Served
from tests.docs.pages import DOCS, ROOT, blocks, code, make_target, pages
from tests.harness import servers

CONFIGURATION: Final = DOCS / "configuration.md"

_LINK: Final = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_VARIABLE: Final = re.compile(r"\bDARKROOM_[A-Z][A-Z_]*[A-Z]\b")
_ENDPOINT: Final = re.compile(
    r"(?:\b(GET|HEAD|POST|PUT|PATCH|DELETE) )?(?:(?<![\w.:/}])|(?<=127\.0\.0\.1:8080))"
    r"(/(?:v1|admin|healthz|readyz|metrics|console|docs|openapi\.json)\b[\w/<>{}.…-]*)"
)
_COMMAND: Final = re.compile(r"(?:^|[\s/])darkroom ([a-z]+)", re.MULTILINE)
_ROW: Final = re.compile(r"^\| (`.+) \|$", re.MULTILINE)
_DECISION_SECTIONS: Final = ["Context", "Decision", "Consequences", "Alternatives"]
# No operations of the API; and the prefixes that base URLs and sentences name.
_BESIDE_ENDPOINTS: Final = {"/docs", "/openapi.json", "/v1", "/admin/v1"}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for match in _LINK.finditer(page.read_text(encoding="utf-8")):
        target, _, anchor = (match[1] or match[2]).partition("#")
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name} links to {target!r}"
        if anchor:
            assert anchor in anchors(path), f"{page.name} links to {target}#{anchor}"


def test_every_decision_is_listed_and_says_why() -> None:
    index = (DOCS / "decisions" / "README.md").read_text(encoding="utf-8")

    for page in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        text = page.read_text(encoding="utf-8")
        title = text.partition("\n")[0].removeprefix("# ")
        number, _, name = title.partition(". ")
        assert f"{number}. [{name}]({page.name})" in index, page.name
        assert page.name.startswith(f"{int(number):04}-")
        assert re.findall("^## (.+)$", text, re.MULTILINE) == _DECISION_SECTIONS, page.name


def test_every_variable_is_a_setting() -> None:
    known = {f"DARKROOM_{field.upper()}" for field in Settings.model_fields}
    known |= {value for name, value in vars(servers).items() if name.endswith("_VARIABLE")}

    unknown = {
        (page.name, name)
        for page in pages()
        for name in _VARIABLE.findall(page.read_text())
        if name not in known
    }

    assert not unknown


@pytest.mark.journey
def test_every_endpoint_is_served(served: Served) -> None:
    paths = httpx2.get(f"{served.url}/openapi.json", trust_env=False).json()["paths"]

    unknown = {
        (page.name, f"{method or 'any'} {path}") for page in pages() for method, path in endpoints(page)
        if not is_served(method, path, paths)
    }  # fmt: skip

    assert not unknown


def test_every_command_exists() -> None:
    group = typer.main.get_command(command)
    known = set(group.list_commands(typer.Context(group)))  # type: ignore[attr-defined] # a group, as `help` shows

    named = {(page.name, name) for page in pages() for text in code(page) for name in _COMMAND.findall(text)}

    assert {name for _, name in named} <= known, named


def test_every_target_is_one_of_makes() -> None:
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S607
    known = set(re.findall(r"^\s+make ([a-z-]+)", printed, re.MULTILINE))

    named = {
        (page.name, target) for page in pages() for text in code(page) for line in text.splitlines()
        if (target := make_target(line.partition(" #")[0])) is not None
    }  # fmt: skip

    assert {"run", "test", "check"} <= {target for _, target in named}
    assert {target for _, target in named} <= known, named


def test_the_table_of_errors_is_what_the_code_raises() -> None:
    written = {
        (row[0].strip("`"), int(row[1])): row[2] for row in rows(DOCS / "errors.md") if row[1].isdecimal()
    }

    assert written.keys() == raised().keys()
    for error, should_retry in raised().items():
        if should_retry is not None:
            assert written[error] == ("yes" if should_retry else "no"), error


def test_the_table_of_settings_is_complete_and_right() -> None:
    written = {row[0].strip("`"): row[1] for row in rows(CONFIGURATION) if row[0].startswith("`DARKROOM_")}
    fields = {f"DARKROOM_{name.upper()}": field.default for name, field in Settings.model_fields.items()}

    assert written.keys() == fields.keys()
    for name, default in fields.items():
        if isinstance(default, str | int | float | Path) and default != "":
            assert written[name] == f"`{str(default).lower() if isinstance(default, bool) else default}`", (
                name
            )


def test_the_vendors_keys_are_those_of_the_shipped_catalog() -> None:
    shipped = load_catalog(ROOT / "config" / "gateway.yaml", adapter_names())
    wanted = {upstream.api_key_env for upstream in shipped.upstreams.values() if upstream.api_key_env}

    assert {text for text in code(CONFIGURATION) if re.fullmatch(r"[A-Z_]+_API_KEY", text)} >= wanted


def test_the_adapters_are_those_that_there_are() -> None:
    section = CONFIGURATION.read_text().partition("### Adapters")[2]

    assert set(re.findall(r"^\| `([a-z]+)`", section, re.MULTILINE)) == adapter_names()


def test_the_examples_of_catalogs_load(tmp_path: Path) -> None:
    annotated, own = catalogs(tmp_path)

    assert annotated.models["gpt-image-2"].routes[0].prices.is_known
    assert own.models["flux"].routes[0].upstream.base_url == "http://10.0.0.5:8000/v1"


def test_the_annotated_catalog_names_every_key(tmp_path: Path) -> None:
    text = next(block.text for block in blocks(CONFIGURATION) if block.language == "yaml")
    kinds = (
        Upstream,
        Model,
        Capabilities,
        SizeRule,
        TokenRule,
        Routing,
        Route,
        Supports,
        Prices,
        TokenPrices,
    )
    keys = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    # `name` is the key of the mapping itself, `allowed` the other way to write sizes.
    keys = keys - {"name", "api_key_env", "allowed"} | {"api_key"}

    assert not {key for key in keys if not re.search(rf"\b{key}:", text)}


def test_a_server_of_ones_own_takes_four_lines() -> None:
    text = [block.text for block in blocks(CONFIGURATION) if block.language == "yaml"][1]
    upstreams = text.partition("upstreams:\n")[2].partition("\n\n")[0]

    assert len(upstreams.splitlines()) == 4


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get when it is shown."""
    headings = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def endpoints(page: Path) -> Iterator[tuple[str, str]]:
    """Method, empty where none is named, and path of each endpoint that a page names as code."""
    for text in code(page):
        for match in _ENDPOINT.finditer(text):
            path = match[2].rstrip(".…/")
            if path not in _BESIDE_ENDPOINTS:
                yield match[1] or "", path


def is_served(method: str, path: str, paths: dict[str, dict[str, Any]]) -> bool:
    """Whether an endpoint of the OpenAPI document answers; `<id>` or `{id}` stands for whatever it calls it."""
    wanted = re.sub(r"<[^>]*>|\{[^}]*\}", "{}", path)
    found = [operations for known, operations in paths.items() if re.sub(r"\{[^}]*\}", "{}", known) == wanted]
    return any(not method or method.lower() in operations for operations in found)


def rows(page: Path) -> list[list[str]]:
    """The rows of a page's tables whose first cell is code."""
    return [match[1].split(" | ") for match in _ROW.finditer(page.read_text(encoding="utf-8"))]


def raised() -> dict[tuple[str, int], bool | None]:
    """Every code and status that a client can meet, with whether to retry; None where that depends."""
    for module in pkgutil.walk_packages(app.__path__, f"{app.__name__}."):
        importlib.import_module(module.name)
    found: dict[tuple[str, int], bool | None] = {}
    for kind in descendants(GatewayError):
        error = (kind.code, kind.status)
        found[error] = kind.should_retry if found.get(error, kind.should_retry) == kind.should_retry else None
    # Some are rendered without being raised by us: the framework's own, and bugs.
    for node in ast.walk(ast.parse(Path(api_errors.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
            given = {item.arg: item.value for item in node.keywords}
            status, known_code = given["status"], given["code"]
            if isinstance(status, ast.Constant) and isinstance(known_code, ast.Constant):
                depends = "should_retry" in given
                found.setdefault((str(known_code.value), int(str(status.value))), None if depends else False)
    return found


def descendants(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    """Every error of ours, in whatever room it is defined."""
    for child in kind.__subclasses__():
        if child.__module__.startswith(f"{app.__name__}."):
            yield child
        yield from descendants(child)


def catalogs(folder: Path) -> list[Catalog]:
    """The catalogs that the page shows, loaded as the gateway would."""
    loaded = []
    for number, block in enumerate(block for block in blocks(CONFIGURATION) if block.language == "yaml"):
        path = folder / f"{number}.yaml"
        path.write_text(block.text, encoding="utf-8")
        loaded.append(load_catalog(path, adapter_names()))
    return loaded
