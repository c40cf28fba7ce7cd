"""Identifiers that carry their kind and sort by the time they were made."""

import os
import time
from typing import Final

# Crockford's base32 in lower case: no i, l, o, u, so an id survives being read aloud.
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_CHARACTERS: Final = 26


def new_id(kind: str) -> str:
    """Return a fresh id such as `job_01jd8w…`: 48 bits of Unix milliseconds, then 80 random bits.

    Ids of one process sort by creation time to the millisecond; nothing may rely on more than that.
    """
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    digits = [_ALPHABET[value >> 5 * place & 31] for place in reversed(range(_CHARACTERS))]
    return f"{kind}_{''.join(digits)}"
