"""`/docs` and all that it loads come from the gateway, and the page may load nothing else."""

import hashlib
import re

import httpx2
import pytest

from app.api.documentation import PATHS
from tests.api.conftest import Gateway

# Of npm's swagger-ui-dist 5.34.0, where the package of decision 24 says that it has them from.
PUBLISHED = {
    "/docs/swagger-ui-bundle.js": "3f6abf70480db7e07914df4c98a77385f22ea585eaf457a3e6415ba0eae2d167",
    "/docs/swagger-ui.css": "c3cfe8248c4b0b89673600fb829924eafbac6de4bc4b2b06f5f5243483074d0a",
}
TYPES = {"js": "text/javascript", "css": "text/css"}


async def test_the_page_loads_what_is_served_beside_it(anonymous: httpx2.AsyncClient) -> None:
    page = await anonymous.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    loaded = [
        str(page.url.join(address)) for address in re.findall(r'(?:src|href)="((?!data:)[^"]+)"', page.text)
    ]
    assert {httpx2.URL(address).path for address in loaded} == (PATHS - {"/docs"}) | {"/openapi.json"}
    for address in loaded:
        answer = await anonymous.get(address)
        assert answer.status_code == 200
        kind = TYPES.get(address.rpartition(".")[2], "application/json")
        assert answer.headers["content-type"].partition(";")[0] == kind


async def test_the_page_may_load_and_run_nothing_else(anonymous: httpx2.AsyncClient) -> None:
    page = await anonymous.get("/docs")
    directives = dict(
        directive.strip().partition(" ")[::2]
        for directive in page.headers["content-security-policy"].split(";")
    )
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == directives["connect-src"] == "'self'"
    assert "http" not in page.headers["content-security-policy"]
    assert not re.search(r"<script>|<style|\son\w+=|style=", page.text)


@pytest.mark.parametrize("path", PUBLISHED)
async def test_swagger_ui_is_as_its_makers_published_it(anonymous: httpx2.AsyncClient, path: str) -> None:
    answer = await anonymous.get(path)
    assert hashlib.sha256(answer.content).hexdigest() == PUBLISHED[path]


async def test_nothing_else_below_the_page_is_open(anonymous: httpx2.AsyncClient) -> None:
    for path in ("/docs/", "/docs/x.js", "/docs/__init__.py", "/docs/..%2fmain.py", "/docs/swagger-ui.css/x"):
        assert (await anonymous.get(path)).status_code == 401, path


async def test_a_head_is_answered(gateway: Gateway, anonymous: httpx2.AsyncClient) -> None:
    for path in PATHS:
        answer = await anonymous.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
