"""Keys of their own purpose, derived from one secret, so that none of them tells anything about another."""

from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32


def derive(secret: bytes, purpose: bytes, length: int = KEY_BYTES) -> bytes:
    """Derive `length` bytes from a secret of 32 or more, the same ones each time for the same purpose (RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=purpose).derive(secret)
