"""A small client of Darkroom's HTTP API, for the command."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx2

from app.cli.errors import CommandFailed, GatewayUnreachable, KeyRefused, UsageMistake
from app.kit.json import JsonObject

FINAL: Final = frozenset({"succeeded", "failed", "cancelled", "expired"})
"""The states that a job never leaves."""

_FILES: Final = "/v1/files/"
_PAGE: Final = 100
# A submit whose connection broke is repeated under the same Idempotency-Key, so it is never bought twice.
_SUBMITS: Final = 3
_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 30.0


class Gateway:
    """A connection to one gateway with one key. Every method raises a `CommandFailed` with a sentence to show."""

    def __init__(self, base_url: str, api_key: str, *, transport: httpx2.BaseTransport | None = None) -> None:
        """`base_url` may end in `/v1`, as an OpenAI SDK has it."""
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        if not self.base_url.startswith(("http://", "https://")):
            raise UsageMistake(
                f"The base URL {base_url!r} is no address. Write one such as http://localhost:8080."
            )
        if not api_key.isascii() or not api_key.isprintable():
            raise KeyRefused("The key holds characters that no key has.")
        self._headers = {"authorization": f"Bearer {api_key}"}
        # Proxy variables are for the way out of a network; a gateway is inside it.
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S), trust_env=False, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def submit(self, request: JsonObject) -> JsonObject:
        """Hand in a generation and return its job at once."""
        headers = {"idempotency-key": f"cli-{uuid.uuid4()}"}
        for left in reversed(range(_SUBMITS)):
            try:
                return self._ask("POST", "/v1/images/generations?async=true", json=request, headers=headers)
            except GatewayUnreachable:
                if not left:
                    raise
        raise AssertionError  # the last round returns or raises

    def job(self, job_id: str, *, wait_s: float = 0.0) -> JsonObject:
        """A job as it stands, held back up to `wait_s` seconds (at most 60) until it is final."""
        query = {"wait": f"{wait_s:g}"} if wait_s else {}
        return self._ask("GET", f"/v1/jobs/{_segment(job_id)}", params=query, timeout_s=_ANSWER_S + wait_s)

    def jobs(self, filters: Mapping[str, str], limit: int) -> list[JsonObject]:
        """The newest jobs, at most `limit`, that match the `filters` of `GET /v1/jobs`."""
        return list(self._listed("/v1/jobs", filters, limit))

    def cancel(self, job_id: str) -> JsonObject:
        """Cancel a job and return it."""
        return self._ask("POST", f"/v1/jobs/{_segment(job_id)}/cancel")

    def teams(self) -> list[JsonObject]:
        """Every team. Wants an admin key, as everything below."""
        return list(self._listed("/admin/v1/teams", {}, None))

    def create_team(self, team: JsonObject) -> JsonObject:
        """Create a team."""
        return self._ask("POST", "/admin/v1/teams", json=team)

    def keys(self, filters: Mapping[str, str]) -> list[JsonObject]:
        """Every key, without its text."""
        return list(self._listed("/admin/v1/keys", filters, None))

    def create_key(self, key: JsonObject) -> JsonObject:
        """Create a key; only this answer holds its text, as `key`."""
        return self._ask("POST", "/admin/v1/keys", json=key)

    def revoke_key(self, key_id: str) -> JsonObject:
        """Revoke a key for good."""
        return self._ask("DELETE", f"/admin/v1/keys/{_segment(key_id)}")

    def upstreams(self) -> list[JsonObject]:
        """Every upstream with its health."""
        return list(self._listed("/admin/v1/upstreams", {}, None))

    def turn_upstream(self, name: str, verb: str, model: str | None) -> JsonObject:
        """`enable` or `disable` an upstream, or one of its models, and return it."""
        query = {} if model is None else {"model": model}
        return self._ask("POST", f"/admin/v1/upstreams/{_segment(name)}/{verb}", params=query)

    def save(self, link: str, path: Path) -> int:
        """Stream the picture behind a signed link into a file and return its bytes; the file appears whole or not.

        A link to the gateway's own files is followed at the address that this client uses, which need not be the
        one the gateway hands out; the signature does not cover it. The key goes to neither.
        """
        _, mark, rest = link.partition(_FILES)
        url = f"{self.base_url}{_FILES}{rest}" if mark else link
        partial = path.with_name(f".{path.name}.part")
        try:
            with self._client.stream("GET", url, follow_redirects=True) as response:
                if response.status_code != 200:
                    response.read()
                    raise _refusal(response)
                with partial.open("wb") as file:
                    size_bytes = sum(file.write(chunk) for chunk in response.iter_bytes())
            partial.replace(path)
        except httpx2.TransportError as exc:
            raise self._unreachable(exc) from exc
        except OSError as exc:
            raise CommandFailed(f"The picture cannot be written to {str(path)!r}: {exc.strerror}.") from exc
        finally:
            partial.unlink(missing_ok=True)
        return size_bytes

    def _listed(self, path: str, filters: Mapping[str, str], limit: int | None) -> Iterator[JsonObject]:
        after: str | None = None
        while limit is None or limit > 0:
            page = {**filters, "limit": str(min(limit or _PAGE, _PAGE))}
            found: Any = self._ask("GET", path, params=page if after is None else {**page, "after": after})
            data = found.get("data")
            yield from data if isinstance(data, list) else []
            after = found.get("last_id")
            if not found.get("has_more") or not data or after is None:
                return
            limit = None if limit is None else limit - len(data)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: JsonObject | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = _ANSWER_S,
    ) -> JsonObject:
        try:
            response = self._client.request(
                method,
                f"{self.base_url}{path}",
                params=params or None,
                json=json,
                headers={**self._headers, **(headers or {})},
                timeout=httpx2.Timeout(timeout_s, connect=_CONNECT_S),
            )
        except (httpx2.TransportError, httpx2.InvalidURL) as exc:
            raise self._unreachable(exc) from exc
        if not response.is_success:
            raise _refusal(response)
        body = _json(response)
        if body is None:
            raise GatewayUnreachable(f"What answers at {self.base_url} is not Darkroom. Check --base-url.")
        return body

    def _unreachable(self, exc: Exception) -> GatewayUnreachable:
        match exc:
            case httpx2.ConnectError() | httpx2.ConnectTimeout():
                said = f"No gateway answers at {self.base_url}. Is it running? Check --base-url or DARKROOM_PUBLIC_URL."
            case httpx2.TimeoutException():
                said = f"The gateway at {self.base_url} took too long to answer."
            case httpx2.InvalidURL() | httpx2.UnsupportedProtocol():
                said = (
                    f"The base URL {self.base_url!r} is no address. Write one such as http://localhost:8080."
                )
            case _:
                said = f"The connection to the gateway at {self.base_url} broke."
        return GatewayUnreachable(said)


def _segment(text: str) -> str:
    """An id as part of a path; what holds anything else cannot be an id."""
    if not text or not text.replace("_", "").replace("-", "").isalnum() or not text.isascii():
        raise UsageMistake(f"{text!r} is no id.")
    return text


def _refusal(response: httpx2.Response) -> CommandFailed:
    body: Any = _json(response) or {}
    error = body.get("error")
    message, code = (error.get("message"), error.get("code")) if isinstance(error, dict) else (None, None)
    if not isinstance(message, str):
        return GatewayUnreachable(
            f"What answers at {response.url.host} says HTTP {response.status_code}, and not as Darkroom would. "
            "Check --base-url."
        )
    said = f"{message} ({code})" if code else message
    match response.status_code:
        case 401 | 403:
            return KeyRefused(f"{said}\nCheck --api-key.")
        case 400 | 405 | 413 | 422:
            return UsageMistake(said)
        case _:
            return CommandFailed(said)


def _json(response: httpx2.Response) -> JsonObject | None:
    if response.status_code == 204:
        return {}
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
