"""A gateway that answers the command with canned jobs, as the contract writes them. The real one has journeys."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

PICTURE: Final = b"\x89PNG\r\n\x1a\n and the rest of a picture"

_SUBMITS: Final = ("/v1/images/generations", "/v1/images/edits")


@dataclass(slots=True)
class Asked:
    """One request, as it came in."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(slots=True)
class FakeGateway:
    """A gateway on a free loopback port, in a thread of its own."""

    api_key: str = "an-api-key-for-the-command-0123456789"
    admin_key: str = "an-admin-key-for-the-command-012345678"
    stages: list[dict[str, Any]] = field(default_factory=list)
    """What a job becomes with each question after it; the last stays."""
    refusal: tuple[int, dict[str, Any] | str] | None = None
    """Answers everything when set."""
    public_url: str = ""
    """What links start with; by default where it really listens."""
    asked: list[Asked] = field(default_factory=list)
    teams: list[dict[str, Any]] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    pictures: int = 1
    broken_submits: int = 0
    """So many submits are cut off before their answer."""
    asked_for_job: threading.Event = field(default_factory=threading.Event)
    """Set when somebody asks after a job."""
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                gateway.answer(self)

            do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - names that http.server looks for

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.public_url = self.public_url or self.url
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        parts = urlsplit(handler.path)
        content = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        asked = Asked(
            method=handler.command,
            path=parts.path,
            query=dict(parse_qsl(parts.query)),
            headers={name.lower(): value for name, value in handler.headers.items()},
            body=_read(content, handler.headers.get_content_type()),
        )
        self.asked.append(asked)
        if asked.path.startswith("/v1/files/") and asked.query.get("sig") == "signed":
            _send(handler, 200, PICTURE, "image/png")
            return
        if asked.path in _SUBMITS and self.broken_submits:
            self.broken_submits -= 1
            handler.close_connection = True
            handler.connection.shutdown(2)
            return
        status, body = self.refusal or self._routed(asked)
        text = body if isinstance(body, str) else json.dumps(body)
        _send(handler, status, text.encode(), "text/html" if isinstance(body, str) else "application/json")

    def job(self, **changes: Any) -> dict[str, Any]:
        """A job of the contract's shape, succeeded unless the changes say otherwise."""
        links = [
            f"{self.public_url}/v1/files/file_{each}/content?exp=1&sig=signed"
            for each in range(self.pictures)
        ]
        return {
            "id": "job_1",
            "object": "image_job",
            "status": "succeeded",
            "operation": "image.generation",
            "model": "gpt-image-2",
            "created_at": 1778637249,
            "started_at": 1778637250,
            "completed_at": 1778637290,
            "expires_at": 1779242049,
            "polling_url": f"{self.public_url}/v1/jobs/job_1",
            "unsigned_urls": links,
            "result": {"created": 1778637290, "data": [{"url": link} for link in links]},
            "cost": {"usd": "0.007152", "estimated": False},
            "upstream": "therouter",
            "attempts": [
                {
                    "upstream": "openai",
                    "outcome": "busy",
                    "cost_usd": "0",
                    "started_at": 0,
                    "duration_ms": 84,
                },
                {
                    "upstream": "therouter",
                    "outcome": "succeeded",
                    "cost_usd": "0.007152",
                    "duration_ms": 39000,
                },
            ],
            "late": [],
            "error": None,
            "metadata": {},
            **changes,
        }

    def _routed(self, asked: Asked) -> tuple[int, dict[str, Any] | str]:
        wanted = self.admin_key if asked.path.startswith("/admin/") else self.api_key
        if asked.headers.get("authorization") != f"Bearer {wanted}":
            return 401, error("Incorrect API key provided.", "invalid_api_key")
        match (asked.method, asked.path.strip("/").split("/")):
            case ("POST", ["v1", "images", "generations" | "edits"]):
                return 202, self.job(status="queued", unsigned_urls=[], upstream=None, completed_at=None)
            case ("GET", ["v1", "jobs", "job_1"]):
                self.asked_for_job.set()
                return 200, self._next_stage()
            case ("GET", ["v1", "jobs"]):
                return 200, page(self.jobs, asked)
            case ("POST", ["v1", "jobs", "job_1", "cancel"]):
                return 200, self.job(status="cancelled", unsigned_urls=[])
            case ("POST", ["admin", "v1", "teams"]):
                self.teams.append({"id": f"team_{len(self.teams) + 1}", "limits": {}, **asked.body})
                return 201, self.teams[-1]
            case ("GET", ["admin", "v1", "teams"]):
                return 200, page(self.teams, asked)
            case ("POST", ["admin", "v1", "keys"]):
                self.keys.append({"id": f"key_{len(self.keys) + 1}", **asked.body})
                return 201, {**self.keys[-1], "key": "dk_0123456789_shown_once"}
            case ("GET", ["admin", "v1", "keys"]):
                team_id = asked.query.get("team_id")
                return 200, page([key for key in self.keys if team_id in {None, key["team_id"]}], asked)
            case ("DELETE", ["admin", "v1", "keys", key_id]):
                return 200, {"id": key_id, "revoked_at": 1}
            case ("GET", ["v1", "jobs", job_id]):
                return 404, error(f"There is no job {job_id!r}.", "job_not_found")
            case _:
                return 404, error("There is nothing here.", "not_found")

    def _next_stage(self) -> dict[str, Any]:
        if not self.stages:
            return self.job()
        return self.stages.pop(0) if len(self.stages) > 1 else self.stages[0]


def error(message: str, code: str) -> dict[str, Any]:
    """An error in OpenAI's envelope."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def page(items: list[dict[str, Any]], asked: Asked) -> dict[str, Any]:
    """One page of a list, as the contract writes it."""
    ids = [item["id"] for item in items]
    start = ids.index(asked.query["after"]) + 1 if "after" in asked.query else 0
    data = items[start : start + int(asked.query["limit"])]
    return {
        "object": "list",
        "data": data,
        "has_more": start + len(data) < len(items),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def _read(content: bytes, media_type: str) -> Any:
    """JSON parsed, a form as its bytes, and nothing as None."""
    return json.loads(content) if media_type == "application/json" else content or None


def _send(handler: BaseHTTPRequestHandler, status: int, content: bytes, media_type: str) -> None:
    handler.send_response(status)
    handler.send_header("content-type", media_type)
    handler.send_header("content-length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)
