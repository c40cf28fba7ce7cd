"""`/openapi.json` tells the truth: requests made after it, right and wrong ones, get the answers that it promises.

Schemathesis makes them up, the same ones every time; `make fuzz` makes up more.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import schemathesis
from ruamel.yaml import YAML
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import (
    EngineFinished,
    FatalError,
    FuzzScenarioFinished,
    NonFatalError,
    ScenarioFinished,
)
from schemathesis.engine.recorder import CheckFailureInfo, CheckNode, ScenarioRecorder

from app.main import build_app
from tests.api.conftest import serving
from tests.kitchen import ADMIN_KEY, API_KEY, open_kitchen, write_settings

SHIPPED: Final = Path(__file__).parents[2] / "config" / "gateway.yaml"
EXAMPLES: Final = int(os.environ.get("DARKROOM_FUZZ_EXAMPLES", "3"))
"""Made up for each operation, besides those for the edges of what its schema allows."""
ACCEPTED: Final = ["2xx", "3xx", "401", "403", "404", "409", "429", "5xx"]
"""Schemathesis' own opinion of what may become of a right request."""
BEYOND_SCHEMAS: Final = [
    # Which sizes, qualities and formats a model takes the catalog says, and whether a picture is one, its bytes.
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/images/route",
    "/v1/chat/completions",
    "/v1/image/{model}/generate",
    "/v1/image/{model}/edit",
    "/v1/files",
    # As are the models in limits, budgets finer than a micro-dollar, and names that cannot be printed.
    "/admin/v1/teams",
    "/admin/v1/teams/{team_id}",
    "/admin/v1/keys",
    "/admin/v1/keys/{key_id}",
    # A key that has been revoked.
    "/admin/v1/keys/{key_id}/rotate",
    # A span ends after it begins, and nothing is grouped twice by the same.
    "/admin/v1/jobs",
    "/admin/v1/spend",
    "/admin/v1/reconcile",
    "/admin/v1/webhooks/deliveries/replay",
    # Where a URL leads is looked up.
    "/admin/v1/webhooks/endpoints",
]
"""Whose requests can be wrong in ways that no schema tells, such as with a key that stands for another one."""
CLIENTS: Final = "clients"
OPERATORS: Final = "operators"
"""Whose gateway is one of their own: they turn upstreams off, and jobs away."""


def configuration(part: str) -> SchemathesisConfig:
    """Every check on every operation of one part, the clients' or the operators'."""
    return SchemathesisConfig.from_dict({
        "seed": 1,
        "workers": 1,
        "headers": {"Authorization": f"Bearer {ADMIN_KEY if part == OPERATORS else API_KEY}"},
        "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
        "phases": {"stateful": {"enabled": False}},
        "operations": [
            {"include-path-regex": "^/(v1|healthz|readyz)" if part == OPERATORS else "^/admin/", "enabled": False},
            {
                "include-path": BEYOND_SCHEMAS,
                "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, "400", "422"]}},
            },
        ],
    })  # fmt: skip


def problems(address: str, part: str) -> list[str]:
    """Ask everything there is to ask, and say what went otherwise than documented."""
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json", config=configuration(part))
    found: list[str] = []
    for event in from_schema(schema).execute():
        match event:
            case ScenarioFinished() | FuzzScenarioFinished():
                found += [
                    _told(check.failure_info) for check in _checks(event.recorder) if check.failure_info
                ]
            case EngineFinished():
                found += [f"{item.operation}: {item.title}: {item.message}" for item in event.failures]
            case FatalError():
                raise event.exception
            case NonFatalError():
                causes = getattr(event.value, "exceptions", (event.value,))
                found += [f"{event.label}: {event.value}: {cause!r}" for cause in causes]
    return found


def _checks(recorder: ScenarioRecorder) -> list[CheckNode]:
    return [check for checks in recorder.checks.values() for check in checks]


def _told(info: CheckFailureInfo) -> str:
    failure = info.failure
    return f"{failure.operation}: {failure.title}\n{failure.message}\n{info.code_sample}"


async def no_such_name(_client: object, host: str, _port: int) -> list[str]:
    """A name server for webhooks to hosts that were made up: it knows addresses alone."""
    if ":" in host:
        return [host]
    raise socket.gaierror(socket.EAI_NONAME, "no such name")


@pytest.mark.journey
@pytest.mark.timeout(600)
# The gateway, which draws lots on other threads meanwhile, is no strategy.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize("part", [CLIENTS, OPERATORS])
async def test_every_request_is_answered_as_documented(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str, part: str
) -> None:
    catalog: Mapping[str, Any] = YAML(typ="safe").load(SHIPPED)
    settings = write_settings(monkeypatch, tmp_path, catalog, database_url=sqlite_url, LOG_LEVEL="error")
    # Each operation is asked with a wrong key too, and 401 is expected however many were before.
    monkeypatch.setattr("app.accounts.service.FAILURES_PER_MINUTE", 10_000)
    monkeypatch.setattr("app.kit.http.GuardedClient._look_up", no_such_name)
    async with open_kitchen(settings) as kitchen, serving(build_app(kitchen.parts)) as address:
        found = await asyncio.to_thread(problems, address, part)
    assert not found, "\n".join(found)


async def test_every_operation_documents_its_errors_with_an_example(anonymous: httpx2.AsyncClient) -> None:
    document = (await anonymous.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                place = f"{method.upper()} {path} {status}"
                assert response["description"], place
                assert "x-request-id" in response["headers"], place
                if status >= "400" and path != "/readyz":
                    assert response["content"]["application/json"]["schema"], place


async def test_what_a_call_may_say_of_its_job_is_documented(anonymous: httpx2.AsyncClient) -> None:
    document = (await anonymous.get("/openapi.json")).json()
    options = {"webhook_url", "metadata", "priority", "cancel_after_s"}
    for path in ("/v1/images/generations", "/v1/images/edits", "/v1/image/{model}/generate"):
        operation = document["paths"][path]["post"]
        headers = {item["name"] for item in operation["parameters"] if item["in"] == "header"}
        assert {f"x-darkroom-{name.replace('_', '-')}" for name in options} <= headers, path
    for path, names in (
        ("/v1/images/generations", options),
        ("/v1/images/edits", options),
        ("/v1/image/{model}/generate", {"webhookUrl"}),
        ("/v1/image/{model}/edit", {"webhookUrl"}),
    ):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert names <= body["schema"]["properties"].keys(), path


async def test_a_model_that_a_key_may_not_see_is_documented(anonymous: httpx2.AsyncClient) -> None:
    document = (await anonymous.get("/openapi.json")).json()
    assert "403" in document["paths"]["/v1/models/{model_id}"]["get"]["responses"]


async def test_what_wants_a_key_says_so_and_is_closed_without_one(anonymous: httpx2.AsyncClient) -> None:
    document = (await anonymous.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            reply = await anonymous.request(method, path.replace("{", "").replace("}", ""))
            assert (reply.status_code == 401) == bool(operation.get("security")), f"{method.upper()} {path}"
            # The second: too many wrong ones.
            for status in ("401", "429"):
                assert (status in operation["responses"]) == bool(operation.get("security"))
