"""How an API key is written, read and hashed. Pure; what a key may do stands in its row.

`dk_<kid>_<secret><check>`, `dk_admin_…` for operators: the kid is no secret and finds the row, the check tells a
mistyped key from a wrong one before the database is asked. Keys of the first start may be any text.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from typing import Final

from app.kit.derivation import derive

_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KID_LENGTH: Final = 10
# 32 characters of base62 are 190 bits: nothing to guess, so a fast hash will do.
_SECRET_LENGTH: Final = 32
_CHECK_LENGTH: Final = 6
_FORM: Final = re.compile(
    rf"(dk_(?:admin_)?([0-9A-Za-z]{{{_KID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}})"
    rf"([0-9A-Za-z]{{{_CHECK_LENGTH}}})"
)
_PRESENTABLE: Final = re.compile(r"[!-~]{32,512}")
_HINT_LENGTH: Final = 12
# The label keeps the pepper apart from any other key that is derived from the same secret.
_PEPPER: Final = b"darkroom/api-keys/v1"
_PEPPER_NAME: Final = b"darkroom/api-keys/v1/kid"
_PEPPER_NAME_BYTES: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key just made. Its text is shown once and never stored."""

    text: str
    lookup: str
    """What its row is found by."""


def make_key(*, is_admin: bool) -> NewKey:
    """Make a key from the system's randomness."""
    kid = _random(_KID_LENGTH)
    body = f"dk_{'admin_' if is_admin else ''}{kid}_{_random(_SECRET_LENGTH)}"
    return NewKey(text=body + _check(body), lookup=kid)


def lookup_of(text: str) -> str | None:
    """Read the kid out of a well-formed key whose check is right; None for any other text."""
    match = _FORM.fullmatch(text)
    if match is None or _check(match[1]) != match[3]:
        return None
    return match[2]


def is_presentable(text: str) -> bool:
    """Whether a text could be a key at all: 32 to 512 visible ASCII characters."""
    return _PRESENTABLE.fullmatch(text) is not None


def hint_of(text: str) -> str:
    """The beginning of a key, enough to recognise it in a list and far too little to use it."""
    return text[:_HINT_LENGTH]


def name_pepper(secret: bytes) -> str:
    """Name a pepper so that a row can say which one its digest was made with; the name tells nothing about it."""
    return derive(secret, _PEPPER_NAME, _PEPPER_NAME_BYTES).hex()


def derive_pepper(secret: bytes) -> bytes:
    """Derive the key that API keys are hashed with, 32 bytes, from a secret of the process."""
    return derive(secret, _PEPPER)


def digest(text: str, pepper: bytes) -> bytes:
    """Hash a key for storage, 32 bytes: without the pepper, which no database holds, a dump of it is of no use."""
    return hmac.digest(pepper, text.encode("utf-8"), hashlib.sha256)


def _random(length: int) -> str:
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def _check(body: str) -> str:
    rest, digits = zlib.crc32(body.encode("ascii")), []
    for _ in range(_CHECK_LENGTH):
        rest, digit = divmod(rest, len(_BASE62))
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
