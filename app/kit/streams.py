"""Bytes on their way, of a length known beforehand."""

from collections.abc import AsyncIterator
from typing import NamedTuple


class SizedStream(NamedTuple):
    """Bytes that are read only when the chunks are asked for."""

    size_bytes: int
    chunks: AsyncIterator[bytes]
