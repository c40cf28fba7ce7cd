"""What another team has is as if it had never been: on every route, byte for byte (reliability 4.6).

The routes are enumerated. A path, query, header or body that can name an object of a team has to stand in a table
here, and a new one that does not fails the test.
"""

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from app.kit.ids import new_id
from tests.api.belongings import A_BOAT, ALBUM, EDITS, GENERATIONS, Neighbours, open_neighbours
from tests.api.conftest import PNG
from tests.api.statements import Statement

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

PATH_IDS: Final = {
    "job_id": "job", "file_id": "file", "delivery_id": "delivery", "endpoint_id": "endpoint", "key_id": "key",
    "team_id": "team",
}  # fmt: skip
"""Path parameters that name an object of a team -> the kind of object."""
PATH_NAMES: Final = {"model", "model_id", "name"}
"""Path parameters that name what is in the catalog, which every team sees."""

NAMES_IDS: Final = frozenset({
    "after", "content", "exp", "file_id", "Idempotency-Key", "If-None-Match", "If-Range", "image_url", "imageUrls",
    "images", "kid", "Last-Event-ID", "mask", "maskUrl", "messages", "metadata", "metadata[key]", "sig",
    "x-darkroom-metadata",
})  # fmt: skip
"""What a query, a header or a body can name or find another team's objects by; each is tried below."""
NAMES_NOTHING: Final = frozenset({
    "async", "background", "expires_after[anchor]", "expires_after[seconds]", "order", "shape",
    "cancel_after_s", "file", "height", "image", "image_config", "imageSize", "index",
    "input_fidelity", "limit", "modalities", "model", "moderation", "n", "numImages", "output_compression",
    "output_format", "outputFormat", "partial_images", "Prefer", "priority", "prompt", "purpose", "quality", "Range",
    "response_format", "role", "safety_identifier", "size", "status", "stream", "user", "wait", "width",
    "webhook_url", "webhookUrl", "x-darkroom-cancel-after-s", "x-darkroom-priority", "x-darkroom-webhook-url",
})  # fmt: skip

ASKED_WITHOUT_A_TEAM: Final = {
    "select assets by expires_at, id": "a signed link has no key; its signature covers the team of what is found",
}
"""Statements that any request may make without its caller's team, and why."""
ASKED_OF_WHAT_WAS_FOUND: Final = {
    "select assets by expires_at, job_id, kind": "the pictures of jobs that the team's own query found",
    "select attempts by job_id": "an attempt has no team; those of jobs that the team's own query found",
    "select jobs by id": "locks the job that the team's own query found in the same transaction",
    "update jobs by id, status": "moves the job that is locked by then",
    "update jobs by delivered_at, id": "the job that this very call made or was given",
    "update assets by id, job_id, kind": "what a job made that ends without it; the job is locked by then",
}
"""Statements that may follow once a query with the team has found something, and why."""


@pytest.fixture
async def neighbours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres_url: str
) -> AsyncIterator[Neighbours]:
    async with open_neighbours(monkeypatch, tmp_path, postgres_url) as opened:
        yield opened


def paths_with_ids(neighbours: Neighbours) -> dict[tuple[str, str], set[str]]:
    """Path and kind of object -> the methods that are served there."""
    found: dict[tuple[str, str], set[str]] = {}
    for route in iter_route_contexts(neighbours.app.routes):
        names = re.findall(r"\{([^}:]+)(?::path)?\}", route.path or "")
        unknown = [name for name in names if name not in PATH_IDS and name not in PATH_NAMES]
        assert not unknown, f"{route.path}: say in PATH_IDS or PATH_NAMES what {unknown} stands for"
        kinds = [PATH_IDS[name] for name in names if name in PATH_IDS]
        assert len(kinds) <= 1, f"{route.path}: two objects in one path are not filled yet"
        for kind in kinds:
            found.setdefault((route.path or "", kind), set()).update(route.methods or ())
    return found


def variants(own: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str], Any]]:
    """Queries, headers and bodies that change what a route does: (query, headers, JSON body).

    `own`: the query of a signed link to a file of the caller.
    """
    yield "", {}, None
    yield "wait=60&index=0", {"range": "bytes=0-3"}, None
    yield "index=7", {"range": "bytes=99999999-", "if-none-match": "*"}, None
    yield "", {"if-none-match": '"ID"', "if-range": '"ID"', "last-event-id": "1-0"}, None
    yield "", {"last-event-id": "-1-0", "accept": "text/event-stream", "prefer": "respond-async"}, None
    yield "&".join(f"{name}={value}" for name, value in own.items()), {}, None
    yield "exp=1&kid=k&sig=s&after=ID", {}, None
    yield "", {"idempotency-key": "one"}, {"id": "ID", "team_id": "default", "file_id": "ID"}


def seen_without(answer: httpx2.Response, an_id: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """An answer as far as it may depend on an id: with the id, its own id and the time taken out."""
    headers = [
        # The team `default` has the name of a directive.
        (name, value if name == "content-security-policy" else value.replace(an_id, "ID"))
        for name, value in answer.headers.multi_items()
        if name not in {"x-request-id", "date"}
    ]
    return answer.status_code, headers, answer.content.replace(an_id.encode(), b"ID")


def asked_beyond(
    statements: list[Statement], owners: frozenset[str], excused: Mapping[str, str]
) -> list[str]:
    """The statements that ask for more than what is these owners', and have no excuse."""
    return [
        item.shape
        for item in statements
        if item.shape not in excused and not (item.owners and item.owners <= owners)
    ]


async def test_an_object_of_another_team_is_no_different_from_none_on_any_route(
    neighbours: Neighbours,
) -> None:
    stranger = neighbours.stranger
    file = await stranger.post("/v1/files", data={"purpose": "vision"}, files={"file": ("a.png", PNG)})
    signed = neighbours.parts.signer.sign(
        neighbours.stranger_team, file.json()["id"], datetime.now(UTC) + timedelta(hours=1)
    )
    own = dict(httpx2.URL(signed).params)
    before = await everything(neighbours)
    walked = 0

    async def ask(method: str, path: str, an_id: str, variant: tuple[str, dict[str, str], Any]) -> Any:
        query, headers, body = variant
        url = f"{re.sub(r'{[^}]+}', an_id, path)}?{query.replace('ID', an_id)}"
        sent = {name: value.replace("ID", an_id) for name, value in headers.items()}
        content = None if body is None else json.dumps(body).replace("ID", an_id).encode()
        with neighbours.statements.watching() as statements:
            answer = await stranger.request(method, url, headers=sent, content=content)
        beyond = asked_beyond(statements, neighbours.strangers, ASKED_WITHOUT_A_TEAM)
        assert not beyond, (method, url, beyond)
        # The same questions to the database take the same time.
        return seen_without(answer, an_id), [item.shape for item in statements]

    for (path, kind), served in sorted(paths_with_ids(neighbours).items()):
        for method in METHODS:
            is_served = method in served and not path.startswith("/admin/")
            ids = neighbours.every(kind)
            for variant in list(variants(own))[: None if is_served else 1]:
                none = await ask(method, path, new_id(kind)[: len(ids[0])], variant)
                for foreign_id in ids if is_served else ids[:1]:
                    assert await ask(method, path, foreign_id, variant) == none, (method, path, variant)
                status = none[0][0]
                expected = 403 if path.startswith("/admin/") else 404 if is_served else 405
                assert status == expected, (method, path, variant)
            walked += 1
    assert walked >= 100
    assert await everything(neighbours) == before


async def everything(neighbours: Neighbours) -> list[Any]:
    """All that the owner sees of what it has, signed links aside."""
    answers = [await neighbours.owner.get(path) for path in ("/v1/jobs?limit=100", "/v1/files?limit=100")]
    answers += [await neighbours.owner.get(f"/v1/jobs/{job_id}") for job_id in neighbours.every("job")]
    answers += [await neighbours.owner.get(f"/v1/files/{file_id}") for file_id in neighbours.every("file")]
    assert {answer.status_code for answer in answers} == {200}
    return [re.sub(r"(exp|sig)=[^\"&]+", "", answer.text) for answer in answers]


async def test_what_names_objects_in_queries_headers_and_bodies_is_known(neighbours: Neighbours) -> None:
    """A parameter that can name an object of a team has to be tried; add it where it belongs."""
    document = neighbours.app.openapi()

    def members(schema: Mapping[str, Any], within: tuple[str, ...] = ()) -> Iterator[str]:
        name = schema.get("$ref", "").rpartition("/")[2]
        if name and name not in within:
            yield from members(document["components"]["schemas"][name], (*within, name))
        for member, inner in schema.get("properties", {}).items():
            yield member
            yield from members(inner, within)
        items = [schema["items"]] if "items" in schema else []
        for inner in [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *items]:
            yield from members(inner, within)

    found = set()
    for path, operations in document["paths"].items():
        if path.startswith("/admin/"):
            continue
        for operation in operations.values():
            found |= {item["name"] for item in operation.get("parameters", ()) if item["in"] != "path"}
            for content in operation.get("requestBody", {}).get("content", {}).values():
                found |= set(members(content["schema"]))
    assert found == NAMES_IDS | NAMES_NOTHING


def bodies(file_id: str, job_id: str, address: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every body that names a file, as (path, JSON)."""
    own = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    plain = {"model": "gpt-image-2", "prompt": "a boat"}
    yield EDITS, {**plain, "images": [{"image_url": own}, {"file_id": file_id}]}
    yield EDITS, {**plain, "images": [{"image_url": own}], "mask": {"file_id": file_id}}
    yield "/v1/images/route", {**plain, "images": [{"file_id": file_id}], "mask": {"file_id": file_id}}
    for link in (f"{address}/v1/files/{file_id}/content", f"{address}/v1/jobs/{job_id}/content"):
        part = {"type": "image_url", "image_url": {"url": link}}
        yield EDITS, {**plain, "images": [{"image_url": link}]}
        yield EDITS, {**plain, "images": [{"image_url": own}], "mask": {"image_url": link}}
        message = {"role": "user", "content": [{"type": "text", "text": "a boat"}, part]}
        yield "/v1/chat/completions", {"model": "gpt-image-2", "messages": [message]}
        yield "/v1/image/gpt-image-2/edit", {"prompt": "a boat", "imageUrls": [link]}
        yield "/v1/image/gpt-image-2/edit", {"prompt": "a boat", "imageUrls": [own], "maskUrl": link}


async def test_a_file_of_another_team_is_no_different_from_none_in_any_body(neighbours: Neighbours) -> None:
    ids = [(file_id, neighbours.owned["job"]["finished"]) for file_id in neighbours.every("file")]
    for place, (path, _) in enumerate(bodies("", "", "")):
        answers = []
        # What is behind a link is fetched without a key, whatever its kind.
        tried = ids[:1] if place >= 3 else ids
        for file_id, job_id in [(new_id("file"), new_id("job")), *tried]:
            body = list(bodies(file_id, job_id, neighbours.address))[place][1]
            with neighbours.statements.watching() as statements:
                answer = await neighbours.stranger.post(path, json=body)
            answers.append((seen_without(answer, file_id), [item.shape for item in statements]))
            beyond = asked_beyond(statements, neighbours.strangers, ASKED_WITHOUT_A_TEAM)
            assert not beyond, (path, body, beyond)
        assert all(answer == answers[0] for answer in answers), (path, answers)
        # The dry run counts pictures and looks at none.
        assert answers[0][0][0] in ({200} if path.endswith("/route") else {400, 404}), answers[0]
    assert (await neighbours.stranger.get("/v1/jobs")).json()["data"] == []
    assert (await neighbours.stranger.get("/v1/files")).json()["data"] == []


async def test_lists_show_nothing_of_another_team_and_begin_after_nothing_of_it(
    neighbours: Neighbours,
) -> None:
    filters = {
        "/v1/jobs": ["", "status=succeeded", "status=in_progress", "model=gpt-image-2", f"metadata[album]={ALBUM}"],
        "/v1/files": ["", "purpose=vision", "limit=100"],
    }  # fmt: skip
    for path, queries in filters.items():
        for query in queries:
            with neighbours.statements.watching() as statements:
                empty = await neighbours.stranger.get(f"{path}?{query}")
            assert empty.json() == {
                "object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None,
            }  # fmt: skip
            assert (await neighbours.owner.get(f"{path}?{query}")).json()["data"], (path, query)
            assert not asked_beyond(statements, neighbours.strangers, {}), (path, query)
            for an_id in (neighbours.owned["job"]["finished"], neighbours.owned["file"]["upload"]):
                absent = new_id(an_id.partition("_")[0])
                foreign, none = [
                    await neighbours.stranger.get(f"{path}?{query}&after={item}") for item in (an_id, absent)
                ]
                assert seen_without(foreign, an_id) == seen_without(none, absent)
                assert foreign.status_code == 404


async def test_a_link_opens_one_file_of_one_team(neighbours: Neighbours) -> None:
    signer, later = neighbours.parts.signer, datetime.now(UTC) + timedelta(hours=1)
    file_id, absent = neighbours.owned["file"]["result"], new_id("file")
    good = httpx2.URL(signer.sign("default", file_id, later))
    assert (
        await neighbours.anonymous.get(f"{neighbours.address}{good.raw_path.decode()}")
    ).status_code == 200
    query = dict(good.params)
    tampered = {
        "another file's": dict(httpx2.URL(signer.sign("default", neighbours.owned["file"]["late"], later)).params),
        "another team's": dict(httpx2.URL(signer.sign(neighbours.stranger_team, file_id, later)).params),
        "too old": dict(httpx2.URL(signer.sign("default", file_id, datetime.now(UTC) - timedelta(1))).params),
        "of another end": {**query, "exp": str(int(query["exp"]) + 1)},
        "of another key": {**query, "kid": query["kid"][::-1]},
        "of another signature": {**query, "sig": query["sig"][::-1]},
    }  # fmt: skip
    for client in (neighbours.anonymous, neighbours.stranger, neighbours.owner):
        for what, params in tampered.items():
            for method in ("GET", "HEAD"):
                foreign, none = [
                    await client.request(method, f"/v1/files/{item}/content", params=params)
                    for item in (file_id, absent)
                ]
                assert foreign.status_code == 404, what
                assert seen_without(foreign, file_id) == seen_without(none, absent), what


async def test_repetitions_of_another_team_are_requests_of_ones_own(neighbours: Neighbours) -> None:
    path, again = f"{GENERATIONS}?async=true", {"idempotency-key": "order-1"}
    first = await neighbours.owner.post(path, json=A_BOAT, headers=again)
    same = await neighbours.stranger.post(path, json=A_BOAT, headers=again)
    other = await neighbours.owner.post(path, json=A_BOAT, headers=again)
    assert (first.status_code, same.status_code) == (202, 202)
    assert first.json()["id"] == other.json()["id"] != same.json()["id"]
    assert "idempotency-replayed" not in same.headers
    changed = await neighbours.stranger.post(path, json={**A_BOAT, "prompt": "a ship"}, headers=again)
    assert (changed.status_code, changed.json()["error"]["job_id"]) == (422, same.json()["id"])
    # The owner's call is cut off; a retry of the same body comes from somebody else.
    broken = await neighbours.owner.post(path, json={**A_BOAT, "prompt": "a broken call"})
    await neighbours.parts.jobs.cut_off(broken.json()["id"])
    retry = {"x-stainless-retry-count": "1"}
    with neighbours.statements.watching() as statements:
        taken = await neighbours.stranger.post(
            path, json={**A_BOAT, "prompt": "a broken call"}, headers=retry
        )
    assert taken.json()["id"] != broken.json()["id"]
    assert not asked_beyond(statements, neighbours.strangers, ASKED_OF_WHAT_WAS_FOUND)


async def test_the_owner_has_all_of_it_and_every_statement_asks_for_its_team(neighbours: Neighbours) -> None:
    """The proof that the ids are good ones; also that each excuse is still needed."""
    owner, used = neighbours.owner, set()
    owners = frozenset({"default", neighbours.owned["key"]["bootstrap"]})
    excused = ASKED_OF_WHAT_WAS_FOUND | ASKED_WITHOUT_A_TEAM

    async def ask(method: str, path: str, expected: set[int], **sent: Any) -> httpx2.Response:
        with neighbours.statements.watching() as statements:
            answer = await owner.request(method, path, **sent)
        assert answer.status_code in expected, (method, path, answer.text)
        beyond = asked_beyond(statements, owners, {})
        assert set(beyond) <= excused.keys(), (method, path, beyond)
        used.update(beyond)
        return answer

    for (path, kind), served in sorted(paths_with_ids(neighbours).items()):
        if path.startswith("/admin/"):
            continue
        for what, an_id in neighbours.owned[kind].items():
            is_watched = path.endswith("/events") and what == "running"
            for method in sorted(served & {"GET", "HEAD"}) if not is_watched else ():
                has_none = {"failed", "cancelled"} if path.endswith(("/result", "/content")) else set()
                expected = {400, 409} if what in has_none else {200, 202, 302}
                await ask(method, path.replace(f"{{{kind}_id}}", an_id), expected)
    finished, running = (neighbours.owned["job"][what] for what in ("finished", "running"))
    link = httpx2.URL((await owner.get(f"/v1/jobs/{finished}")).json()["unsigned_urls"][0])
    await ask("GET", link.raw_path.decode(), {200})
    await ask("POST", f"/v1/jobs/{running}/cancel", {200})
    await ask("DELETE", f"/v1/jobs/{finished}", {409})
    await ask("DELETE", f"/v1/files/{neighbours.owned['file']['upload']}", {200})
    await ask("POST", f"{GENERATIONS}?async=true", {202}, json=A_BOAT)
    assert used == excused.keys()
