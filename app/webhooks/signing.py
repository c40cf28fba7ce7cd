"""Secrets and signatures of webhooks. Pure.

Source: Standard Webhooks 1.0.0, https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
(read 2026-11-21).
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32


def make_secret() -> bytes:
    """Make a secret from the system's randomness: 32 bytes."""
    return secrets.token_bytes(_SECRET_BYTES)


def text_of(secret: bytes) -> str:
    """Write a secret as receivers want it: `whsec_` and Base64."""
    return PREFIX + base64.b64encode(secret).decode("ascii")


def sign(secret_keys: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes) -> str:
    """Write the `webhook-signature` header: a signature under each of the secrets, any of which will do."""
    message = b".".join((message_id.encode(), str(timestamp_s).encode(), body))
    digests = (hmac.digest(secret, message, hashlib.sha256) for secret in secret_keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode('ascii')}" for digest in digests)
