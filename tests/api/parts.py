"""The API's collaborators for tests: accounts that know two keys, and the headers that present one of them."""

from typing import Final, cast

from app.accounts.errors import InvalidApiKey
from app.accounts.records import Caller, Role
from app.accounts.service import Accounts

API_KEY: Final = "test-team-key-0123456789-0123456789"
ADMIN_KEY: Final = "test-admin-key-0123456789-0123456789"
AUTHORIZED: Final = {"authorization": f"Bearer {API_KEY}"}

_CALLERS: Final = {
    API_KEY: Caller(team_id="default", api_key_id="key_1", role=Role.TEAM, limits={}),
    ADMIN_KEY: Caller(team_id="default", api_key_id="key_2", role=Role.ADMIN, limits={}),
}


class _KnownAccounts:
    """Accounts without a database."""

    async def authenticate(self, text: str, *, client: str | None = None) -> Caller:
        caller = _CALLERS.get(text)
        if caller is None:
            raise InvalidApiKey("Incorrect API key provided.")
        return caller

    async def recognise(self, text: str, *, client: str | None = None) -> Caller:
        return await self.authenticate(text)


def known_accounts() -> Accounts:
    """Accounts for tests that look at everything but accounts."""
    return cast("Accounts", _KnownAccounts())
