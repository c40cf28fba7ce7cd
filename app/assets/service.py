"""Keeping the pictures that upstreams made: checked, converted where the vendor could not, and put into storage."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from app.assets.conversion import convert
from app.assets.errors import AssetMissing
from app.assets.inspection import inspect, keep
from app.assets.links import LinkSigner
from app.assets.records import Asset, Picture
from app.assets.repository import find_asset
from app.assets.storage import Storage
from app.db.engine import Database
from app.domain.pictures import PictureFormat, Size, parse_size
from app.domain.requests import ImageRequest
from app.kit.ids import new_id
from app.kit.streams import SizedStream

_SPOOL_LIFE_S: Final = 86_400.0
LINK_LIFE: Final = timedelta(hours=1)
"""How long a vendor may take to fetch an input: longer than any job lives."""


class PictureKeeper:
    """Turns files that an upstream delivered into pictures in storage."""

    def __init__(self, storage: Storage, spool: Path) -> None:
        self._storage = storage
        self._spool = spool

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Lend a folder for one call's spool files; it is removed with all that is in it."""
        self._spool.mkdir(parents=True, exist_ok=True)
        # On the storage's own file system where that is a folder, so that keeping a picture is a rename.
        with tempfile.TemporaryDirectory(dir=self._spool, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def clear_spool(self) -> None:
        """Remove what processes that were killed left behind. Blocks; what is in use is far younger."""
        if not self._spool.is_dir():
            return
        oldest = time.time() - _SPOOL_LIFE_S
        for left in self._spool.iterdir():
            with suppress(OSError):
                if left.stat().st_mtime < oldest:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()

    async def keep(self, path: Path, request: ImageRequest, spool: Path) -> tuple[Picture, list[str]]:
        """Check a delivered file and store it; with what was changed against the request, for `adjusted`.

        A format other than the asked one is converted, once. `path` stays in the workspace.

        Raises:
            PictureBroken: the file is not one whole picture; nothing was stored.
            StorageUnavailable: storage did not take it; trying again is fine.
        """
        notes: list[str] = []
        inspected = await asyncio.to_thread(inspect, path)
        asked = None if request.output_format is None else PictureFormat(request.output_format)
        if asked is not None and inspected.format is not asked:
            notes.append(f"output_format: converted from {inspected.format} to {asked}")
            path = await convert(path, asked, compression=request.output_compression, directory=spool)
            inspected = await asyncio.to_thread(inspect, path)
        kept = await keep(path, self._storage, inspected=inspected)
        made = Size(kept.width_px, kept.height_px)
        size = None if request.size is None else parse_size(request.size)
        if size is not None and size != made:
            notes.append(f"size: asked for {size}, the upstream made {made}")
        picture = Picture(
            file_id=new_id("file"),
            key=kept.key,
            format=kept.format,
            width_px=kept.width_px,
            height_px=kept.height_px,
            size_bytes=kept.size_bytes,
            sha256=kept.sha256,
        )
        return picture, notes


class StoredInputs:
    """Input pictures in storage, as the caller streams them into a body."""

    def __init__(self, database: Database, storage: Storage, signer: LinkSigner) -> None:
        self._database = database
        self._storage = storage
        self._signer = signer

    async def open(self, file_id: str) -> SizedStream:
        """Find a stored input; its bytes are read only when the chunks are asked for.

        Raises:
            AssetMissing: there is no such picture any more.
        """
        asset = await self._find(file_id)
        return SizedStream(size_bytes=asset.size_bytes, chunks=self._storage.open(asset.key))

    async def link(self, file_id: str) -> str:
        """Write a public link to a stored input, good for as long as any vendor may take to fetch it.

        Raises:
            AssetMissing: there is no such picture any more.
        """
        asset = await self._find(file_id)
        return self._signer.sign(asset.team_id, asset.id, datetime.now(UTC) + LINK_LIFE)

    async def _find(self, file_id: str) -> Asset:
        async with self._database.reading() as connection:
            asset = await find_asset(connection, file_id, team_id=None)
        if asset is None:
            raise AssetMissing(f"There is no file {file_id!r}.")
        return asset
