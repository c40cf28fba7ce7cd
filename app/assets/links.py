"""Signed links to one file's content: whoever holds one may read that file until it expires, without a key."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from app.kit.derivation import derive

# The label keeps these keys apart from any other that is derived from the same secret.
_SIGNING: Final = b"darkroom/file-links/v1"
_NAMING: Final = b"darkroom/file-links/v1/kid"
_NAME_BYTES: Final = 6


class LinkSigner:
    """Signs with the first secret and accepts all of them, so that secrets can be rotated."""

    def __init__(self, secrets: tuple[bytes, ...], public_url: str) -> None:
        """Derive the keys.

        Args:
            secrets: of 32 bytes or more each, newest first.
            public_url: how clients reach the gateway; comes before every link.

        Raises:
            ValueError: there is no secret.
        """
        if not secrets:
            raise ValueError("signing links takes at least one secret")
        keys = {derive(secret, _NAMING, _NAME_BYTES).hex(): derive(secret, _SIGNING) for secret in secrets}
        self._keys: Final[Mapping[str, bytes]] = keys
        self._newest: Final = next(iter(keys))
        self._public_url: Final = public_url.rstrip("/")

    def sign(self, team_id: str, file_id: str, expires_at: datetime) -> str:
        """Write the absolute URL that serves this team's file up to, not including, `expires_at` (whole seconds)."""
        expiry = str(int(expires_at.timestamp()))
        signature = self._signature(self._newest, team_id, file_id, expiry)
        return (
            f"{self._public_url}/v1/files/{file_id}/content?exp={expiry}&kid={self._newest}&sig={signature}"
        )

    def verify(self, file_id: str, query: Mapping[str, str], team_id: str, now: datetime) -> bool:
        """Judge whether a link's query was signed by us for this file of this team, and has not expired.

        `team_id` is what the file's record says. Parameters other than `exp`, `kid` and `sig` do not matter.
        """
        kid, expiry, given = query.get("kid", ""), query.get("exp", ""), query.get("sig", "")
        if kid not in self._keys or not given.isascii():
            return False
        # The signature comes first, so that an answer never tells whether an unsigned expiry would have done.
        if not hmac.compare_digest(self._signature(kid, team_id, file_id, expiry), given):
            return False
        return now.timestamp() < int(expiry)

    def _signature(self, kid: str, team_id: str, file_id: str, expiry: str) -> str:
        message = f"v1\nGET\n{team_id}\n{file_id}\n{expiry}".encode("utf-8", "backslashreplace")
        digest = hmac.digest(self._keys[kid], message, hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
