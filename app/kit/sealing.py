"""Secrets at rest: sealed with AES-256-GCM under keys derived from the process's secrets, bound to their place.

A sealed value copied to another row does not open there.
"""

import secrets
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.kit.derivation import derive

# The labels keep these keys apart from any other that is derived from the same secret.
_SEALING: Final = b"darkroom/sealing/v1"
_NAMING: Final = b"darkroom/sealing/v1/kid"
_KID_BYTES: Final = 6
_NONCE_BYTES: Final = 12


class SealBroken(Exception):
    """A sealed value cannot be opened: its key is not among the secrets, or it is not what was sealed here."""


class Sealer:
    """Seals under the newest secret and opens under all of them, so that secrets can be rotated."""

    def __init__(self, secret_keys: tuple[bytes, ...]) -> None:
        """Derive the keys.

        Args:
            secret_keys: of 32 bytes or more each, newest first.

        Raises:
            ValueError: there is no secret.
        """
        if not secret_keys:
            raise ValueError("sealing takes at least one secret")
        keys = {
            derive(secret, _NAMING, _KID_BYTES): AESGCM(derive(secret, _SEALING)) for secret in secret_keys
        }
        self._keys: Final[Mapping[bytes, AESGCM]] = keys
        self._newest: Final = next(iter(keys))

    def seal(self, secret: bytes, place: str) -> bytes:
        """Seal a secret for one place; the same secret never gives the same bytes twice.

        `place`: as `place_of` writes it. Layout: name of the key (6 bytes), nonce (12), ciphertext with its tag.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return self._newest + nonce + self._keys[self._newest].encrypt(nonce, secret, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Open what was sealed for this place.

        Raises:
            SealBroken: no secret of this process opens it.
        """
        kid, nonce = sealed[:_KID_BYTES], sealed[_KID_BYTES : _KID_BYTES + _NONCE_BYTES]
        key = self._keys.get(kid)
        if key is None:
            raise SealBroken(
                f"what is stored in {place!r} was sealed under a secret that DARKROOM_SECRET_KEY no longer holds"
            )
        try:
            return key.decrypt(nonce, sealed[_KID_BYTES + _NONCE_BYTES :], place.encode())
        except (InvalidTag, ValueError) as exc:
            raise SealBroken(f"what is stored in {place!r} is not what was sealed there") from exc

    def knows(self, sealed: bytes) -> bool:
        """Whether this process has the secret that a value was sealed under."""
        return sealed[:_KID_BYTES] in self._keys

    def is_current(self, sealed: bytes) -> bool:
        """Whether a value is sealed under the newest secret."""
        return sealed[:_KID_BYTES] == self._newest


def place_of(table: str, row_id: str, column: str) -> str:
    """Name the one place in which a sealed value opens."""
    return f"{table}|{row_id}|{column}"
