"""Keeps new jobs out while storage could not take their pictures: what is bought must be kept."""

import asyncio
from typing import Final

from app.assets.errors import StorageFull, StorageUnavailable
from app.assets.storage import Storage

LOOK_EVERY_S: Final = 5.0
"""How long an answer of storage is taken for true; a gateway in use fills no disk in less."""


class StorageGate:
    """Open while storage can be written and has room."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._looked_at = float("-inf")
        self._reason: str | None = None
        self._looking = asyncio.Lock()

    async def enter(self) -> None:
        """Let a new job in.

        Raises:
            StorageFull: storage cannot be written, or is nearly full.
        """
        async with self._looking:
            if asyncio.get_running_loop().time() - self._looked_at > LOOK_EVERY_S:
                await self._look()
        if self._reason is not None:
            raise StorageFull(
                f"No new job can be taken in: {self._reason}. Try again later.", retry_after_s=60.0
            )

    async def _look(self) -> None:
        try:
            await self._storage.check()
        except StorageUnavailable as exc:
            self._reason = exc.message
        else:
            self._reason = None
        self._looked_at = asyncio.get_running_loop().time()
