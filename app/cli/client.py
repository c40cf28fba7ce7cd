"""A small client of Darkroom's HTTP API, for the command."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self
from urllib.parse import quote

import httpx2

from app.cli.errors import CommandFailed, GatewayUnreachable, KeyRefused, UsageMistake
from app.kit.json import JsonObject

FINAL: Final = frozenset({"succeeded", "failed", "cancelled", "expired"})
"""The states that a job never leaves."""

_FILES: Final = "/v1/files/"
_NOTHING_THERE: Final = "There is nothing at "
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
        return _repeated(
            lambda headers: self._ask(
                "POST", "/v1/images/generations?async=true", json=request, headers=headers
            )
        )

    def submit_edit(self, request: JsonObject, images: Sequence[Path], mask: Path | None) -> JsonObject:
        """Hand in an edit of pictures in files, and return its job at once.

        Raises:
            CommandFailed: as everywhere; also for a file that cannot be read.
        """
        named = [*(("image[]", path) for path in images), *([] if mask is None else [("mask", mask)])]
        form = {name: str(value) for name, value in request.items()}

        def hand_in(headers: Mapping[str, str]) -> JsonObject:
            with ExitStack() as stack:
                try:
                    files = [
                        (name, (path.name, stack.enter_context(path.open("rb")))) for name, path in named
                    ]
                except OSError as exc:
                    raise UsageMistake(f"{exc.filename!r} cannot be read: {exc.strerror}.") from exc
                return self._ask(
                    "POST", "/v1/images/edits?async=true", form=form, files=files, headers=headers
                )

        return _repeated(hand_in)

    def job(self, job_id: str, *, wait_s: float = 0.0) -> JsonObject:
        """A job as it stands, held back up to `wait_s` seconds (at most 60) until it is final."""
        # Whichever API it came in by.
        query = {"shape": "image_job", **({"wait": f"{wait_s:g}"} if wait_s else {})}
        return self._ask("GET", f"/v1/jobs/{_segment(job_id)}", params=query, timeout_s=_ANSWER_S + wait_s)

    def jobs(self, filters: Mapping[str, str], limit: int) -> list[JsonObject]:
        """The newest jobs, at most `limit`, that match the `filters` of `GET /v1/jobs`."""
        return list(self._listed("/v1/jobs", filters, limit))

    def cancel(self, job_id: str) -> JsonObject:
        """Cancel a job and return it."""
        return self._ask("POST", f"/v1/jobs/{_segment(job_id)}/cancel")

    def any_job(self, job_id: str) -> JsonObject:
        """A job of any team, with all that is known of its attempts. Wants an admin key, as everything below."""
        return self._ask("GET", f"/admin/v1/jobs/{_segment(job_id)}")

    def any_jobs(self, filters: Mapping[str, str], limit: int) -> list[JsonObject]:
        """The newest jobs of all teams, at most `limit`, that match the `filters` of `GET /admin/v1/jobs`."""
        return list(self._listed("/admin/v1/jobs", filters, limit))

    def cancel_any(self, job_id: str) -> JsonObject:
        """Cancel a job of any team and return it."""
        return self._ask("POST", f"/admin/v1/jobs/{_segment(job_id)}/cancel")

    def requeue(self, job_id: str) -> JsonObject:
        """Have a final job's request made again, and return the new job."""
        return self._ask("POST", f"/admin/v1/jobs/{_segment(job_id)}/requeue")

    def teams(self) -> list[JsonObject]:
        """Every team."""
        return list(self._listed("/admin/v1/teams", {}, None))

    def find_team(self, named: str) -> JsonObject:
        """The team of this id, else the one of this name.

        Raises:
            UsageMistake: there is none, or several have the name.
        """
        teams = self.teams()
        found = [team for team in teams if team["id"] == named] or [
            team for team in teams if team.get("name") == named
        ]
        if len(found) != 1:
            known = ", ".join(str(team.get("name")) for team in teams) or "none"
            said = "There is no team" if not found else "Several teams are called"
            raise UsageMistake(f"{said} {named!r}. There are: {known}.")
        return found[0]

    def create_team(self, team: JsonObject) -> JsonObject:
        """Create a team."""
        return self._ask("POST", "/admin/v1/teams", json=team)

    def change_team(self, team_id: str, changes: JsonObject) -> JsonObject:
        """Change a team's name or limits, and return it."""
        return self._ask("PATCH", f"/admin/v1/teams/{_segment(team_id)}", json=changes)

    def keys(self, filters: Mapping[str, str]) -> list[JsonObject]:
        """Every key, without its text."""
        return list(self._listed("/admin/v1/keys", filters, None))

    def create_key(self, key: JsonObject) -> JsonObject:
        """Create a key; only this answer holds its text, as `key`."""
        return self._ask("POST", "/admin/v1/keys", json=key)

    def change_key(self, key_id: str, changes: JsonObject) -> JsonObject:
        """Change a key's name or limits, and return it."""
        return self._ask("PATCH", f"/admin/v1/keys/{_segment(key_id)}", json=changes)

    def rotate_key(self, key_id: str, overlap_s: float | None) -> JsonObject:
        """Put a new key in the place of one, which works on for `overlap_s` seconds; None: a day.

        Only this answer holds the new one's text, as `key`; `replaces` is the old one.
        """
        wanted: JsonObject = {} if overlap_s is None else {"overlap_s": overlap_s}
        return self._ask("POST", f"/admin/v1/keys/{_segment(key_id)}/rotate", json=wanted)

    def revoke_key(self, key_id: str) -> JsonObject:
        """Revoke a key for good."""
        return self._ask("DELETE", f"/admin/v1/keys/{_segment(key_id)}")

    def upstreams(self) -> list[JsonObject]:
        """Every upstream with its health."""
        return list(self._listed("/admin/v1/upstreams", {}, None))

    def turn_upstream(self, name: str, verb: str, model: str | None) -> JsonObject:
        """`enable`, `disable`, `drain` or `reset` an upstream, or one of its models, and return it."""
        query = {} if model is None else {"model": model}
        return self._ask("POST", f"/admin/v1/upstreams/{_name(name)}/{verb}", params=query)

    def spend(self, query: Mapping[str, str]) -> JsonObject:
        """What was spent, as `GET /admin/v1/spend` groups it."""
        return self._ask("GET", "/admin/v1/spend", params=query)

    def spend_table(self, query: Mapping[str, str]) -> str:
        """The same as CSV."""
        return self._answer("GET", "/admin/v1/spend", params={**query, "format": "csv"}).text

    def reconcile(self, export: bytes, *, is_csv: bool, query: Mapping[str, str]) -> JsonObject:
        """Import what a vendor charged: an export as `POST /admin/v1/reconcile` takes it."""
        headers = {"content-type": "text/csv" if is_csv else "application/json"}
        return self._ask("POST", "/admin/v1/reconcile", params=query, content=export, headers=headers)

    def webhook_endpoints(self, filters: Mapping[str, str]) -> list[JsonObject]:
        """Every endpoint that is told of the ends of a team's jobs."""
        return list(self._listed("/admin/v1/webhooks/endpoints", filters, None))

    def create_webhook_endpoint(self, endpoint: JsonObject) -> JsonObject:
        """Create an endpoint; only this answer holds the team's `secret`, and only with its first one."""
        return self._ask("POST", "/admin/v1/webhooks/endpoints", json=endpoint)

    def deliveries(self, filters: Mapping[str, str], limit: int) -> list[JsonObject]:
        """The newest deliveries, at most `limit`, with every try."""
        return list(self._listed("/admin/v1/webhooks/deliveries", filters, limit))

    def resend(self, delivery_id: str) -> JsonObject:
        """Send the event of a delivery to its receiver again, and return the new delivery."""
        return self._ask("POST", f"/admin/v1/webhooks/deliveries/{_segment(delivery_id)}/resend")

    def maintenance(self) -> JsonObject:
        """Whether new jobs are turned away, and how many are still to be finished."""
        return self._ask("GET", "/admin/v1/maintenance")

    def turn_maintenance(self, *, is_on: bool) -> JsonObject:
        """Turn new jobs away, or take them in again."""
        return self._ask("POST", "/admin/v1/maintenance", json={"drain": is_on})

    def reload_config(self) -> JsonObject:
        """Have the gateway read its catalog file again, in every process."""
        return self._ask("POST", "/admin/v1/config/reload")

    def audit(self, filters: Mapping[str, str], limit: int) -> list[JsonObject]:
        """What operators did last, at most `limit` entries."""
        return list(self._listed("/admin/v1/audit", filters, limit))

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

    def _ask(self, method: str, path: str, **options: Any) -> JsonObject:
        """The JSON object of an answer; options as `_answer` takes them."""
        body = _json(self._answer(method, path, **options))
        if body is None:
            raise GatewayUnreachable(f"What answers at {self.base_url} is not Darkroom. Check --base-url.")
        return body

    def _answer(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: JsonObject | None = None,
        content: bytes | None = None,
        form: Mapping[str, str] | None = None,
        files: Sequence[tuple[str, tuple[str, BinaryIO]]] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = _ANSWER_S,
    ) -> httpx2.Response:
        try:
            response = self._client.request(
                method,
                f"{self.base_url}{path}",
                params=params or None,
                json=json,
                content=content,
                data=form,
                files=files,
                headers={**self._headers, **(headers or {})},
                timeout=httpx2.Timeout(timeout_s, connect=_CONNECT_S),
            )
        except (httpx2.TransportError, httpx2.InvalidURL) as exc:
            raise self._unreachable(exc) from exc
        if not response.is_success:
            raise _refusal(response)
        return response

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


def _repeated(hand_in: Callable[[Mapping[str, str]], JsonObject]) -> JsonObject:
    """Hand a request in, again while the connection breaks; the headers make the gateway find the job it has."""
    headers = {"idempotency-key": f"cli-{uuid.uuid4()}"}
    for left in reversed(range(_SUBMITS)):
        try:
            return hand_in(headers)
        except GatewayUnreachable:
            if not left:
                raise
    raise AssertionError  # the last round returns or raises


def _segment(text: str) -> str:
    """An id as part of a path; what holds anything else cannot be an id."""
    if not text or not text.replace("_", "").replace("-", "").isalnum() or not text.isascii():
        raise UsageMistake(f"{text!r} is no id.")
    return text


def _name(text: str) -> str:
    """A name of the catalog as part of a path."""
    if not text or text.strip(".") == "":
        raise UsageMistake(f"{text!r} is no name.")
    return quote(text, safe="")


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
    if response.status_code == 404 and message.startswith(_NOTHING_THERE) and "/admin/" in response.url.path:
        return CommandFailed(
            f"{said}\nOperators may be served elsewhere: set DARKROOM_ADMIN_LISTEN as the gateway has it, or give that "
            "address with --base-url."
        )
    match response.status_code:
        case 401 | 403:
            return KeyRefused(f"{said}\nCheck --api-key.")
        case 400 | 405 | 413 | 422:
            return UsageMistake(said)
        case 404 if code == "model_not_found":
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
