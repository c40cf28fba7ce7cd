"""Who may come in, decided by the path and the headers alone, before a byte of the body is asked for."""

import re
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.accounts.errors import AdminKeyRequired, InvalidApiKey
from app.accounts.records import Caller, Role
from app.accounts.service import Accounts
from app.api import documentation

PUBLIC_PATHS: Final = frozenset({"/healthz", "/readyz", "/openapi.json"}) | documentation.PATHS
"""What contract 4 opens to everybody, besides signed links and the console's static files."""
_CONSOLE: Final = "/console"
_OPERATORS: Final = "/admin/v1"
LOOKS: Final = frozenset({f"{_OPERATORS}/config/check"})
"""Operators' POSTs that change nothing."""
_TRUE: Final = frozenset({"true", "1"})
_METRICS: Final = "/metrics"
_FILE_CONTENT: Final = re.compile(r"/v1/files/[^/]+/content")
_SIGNATURE: Final = frozenset({"exp", "kid", "sig"})
_BEARER: Final = re.compile(r"bearer +(\S+) *", re.IGNORECASE)


class Authentication:
    """ASGI middleware: everything wants a key unless it is listed here.

    A team's key opens everything but the operators' part, an operator's key that part alone. The caller is then in
    `scope["state"]["caller"]`.
    """

    def __init__(self, app: ASGIApp, accounts: Accounts, *, are_metrics_public: bool = False) -> None:
        self._app = app
        self._accounts = accounts
        self._public_paths = PUBLIC_PATHS | ({_METRICS} if are_metrics_public else frozenset())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            InvalidApiKey: no key, a wrong one, or an operator's where a team's is wanted.
            KeyExpired: the key was right once.
            RateLimitExceeded: a wrong key, and too many of them came from this address.
            AdminKeyRequired: a team's key where an operator's is wanted.
            StoreUnavailable: the database did not answer in time.
        """
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http" and not is_public(scope, self._public_paths):
            token, client = _token(scope), _address(scope)
            if scope["path"] == _METRICS:
                caller = await self._accounts.recognise(token, client=client)
            else:
                caller = await self._accounts.authenticate(token, client=client)
            _check_role(caller, scope)
            scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)


def caller_of(request: Request) -> Caller:
    """Who is asking. Only for endpoints that want a key."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


def is_signed_link(scope: Scope) -> bool:
    """Whether a request claims to hold a signed link; the endpoint finds out whether it does."""
    return (
        scope["method"] in {"GET", "HEAD"}
        and _FILE_CONTENT.fullmatch(scope["path"]) is not None
        and parse_qs(scope["query_string"].decode("latin-1")).keys() >= _SIGNATURE
    )


def is_public(scope: Scope, public_paths: frozenset[str] = PUBLIC_PATHS) -> bool:
    """Whether a request is served without a key."""
    path: str = scope["path"]
    is_console = path == _CONSOLE or path.startswith(f"{_CONSOLE}/")
    return path in public_paths or is_console or is_signed_link(scope)


def _address(scope: Scope) -> str | None:
    """Where a request comes from: the other end of the connection, or whom a trusted proxy names."""
    client: tuple[str, int] | None = scope.get("client")
    return None if client is None else client[0]


def only_looks(scope: Scope) -> bool:
    """Whether an operator's request changes nothing, provided that its endpoint has a dry run where it asks for one."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    is_dry = query.get("dry_run", [""])[-1].lower() in _TRUE
    return scope["method"] in {"GET", "HEAD"} or scope["path"] in LOOKS or is_dry


def may_only_look() -> AdminKeyRequired:
    """What an operator is told whose key may change nothing."""
    return AdminKeyRequired("This key may only look. Send an admin key that may change things.")


def _token(scope: Scope) -> str:
    given = Headers(scope=scope).get("authorization", "")
    match = _BEARER.fullmatch(given)
    if match is None:
        raise InvalidApiKey("You did not provide an API key. Send one as 'Authorization: Bearer KEY'.")
    return match[1]


def _check_role(caller: Caller, scope: Scope) -> None:
    path: str = scope["path"]
    if path.startswith(f"{_OPERATORS}/") or path in {_OPERATORS, _METRICS}:
        if not caller.role.is_operator:
            raise AdminKeyRequired(f"{path!r} is for operators. Send an admin key.")
        if caller.role is Role.ADMIN_READ and not only_looks(scope):
            raise may_only_look()
    elif caller.role.is_operator:
        raise InvalidApiKey(
            "This is an admin key, which opens only /admin/v1 and /metrics. Send a team's API key."
        )
