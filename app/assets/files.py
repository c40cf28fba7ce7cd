"""Files as clients see them: a team's own by key, and anybody's by a signed link."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from app.assets.errors import AssetMissing
from app.assets.inputs import Taken
from app.assets.links import LinkSigner
from app.assets.records import Asset, AssetKind
from app.assets.repository import delete_assets, find_asset, insert_assets, search_assets
from app.assets.storage import Storage
from app.db.engine import Database

UPLOAD_LIFE: Final = timedelta(days=30)
"""How long a file that a client uploaded is kept."""


class Files:
    """Finds files for those who may read them."""

    def __init__(self, database: Database, storage: Storage, signer: LinkSigner) -> None:
        self._database = database
        self._storage = storage
        self._signer = signer

    async def upload(
        self, taken: Taken, team_id: str, *, filename: str, purpose: str, life: timedelta = UPLOAD_LIFE
    ) -> Asset:
        """Make a file of a picture that is in storage already, to be used as `file_id` and kept for `life`."""
        async with self._database.transaction() as connection:
            await insert_assets(
                connection,
                [taken.picture],
                kind=AssetKind.UPLOAD,
                team_id=team_id,
                job_id=None,
                attempt_id=None,
                expires_at=datetime.now(UTC) + life,
                purpose=purpose,
                filename=filename,
            )
        return await self.find(taken.picture.file_id, team_id)

    async def search(
        self, team_id: str, *, purpose: str | None, after: str | None, limit: int, oldest_first: bool = False
    ) -> tuple[Sequence[Asset], bool]:
        """Look at up to `limit` files of a team, after the file `after`; and whether there are more.

        Raises:
            AssetMissing: `after` is none of the team's files.
        """
        anchor = None if after is None else await self.find(after, team_id, param="after")
        async with self._database.reading() as connection:
            found = await search_assets(
                connection,
                team_id,
                purpose=purpose,
                after=anchor,
                limit=limit + 1,
                oldest_first=oldest_first,
            )
        return found[:limit], len(found) > limit

    async def delete(self, file_id: str, team_id: str) -> None:
        """Delete a file and its bytes; a job whose result it is keeps its record.

        Raises:
            AssetMissing: the team has no such file.
            StorageUnavailable: the bytes could not be removed; nothing was deleted.
        """
        asset = await self.find(file_id, team_id)
        await self._storage.delete(asset.key)
        async with self._database.transaction() as connection:
            await delete_assets(connection, [asset.id], team_id=team_id)

    async def find(self, file_id: str, team_id: str, *, param: str = "id") -> Asset:
        """Find a file of a team, which the request names in `param`.

        Raises:
            AssetMissing: the team has no such file, or has it no longer.
        """
        async with self._database.reading() as connection:
            asset = await find_asset(connection, file_id, team_id=team_id)
        if asset is None:
            raise _no_such_file(file_id, param)
        return asset

    async def find_signed(self, file_id: str, query: Mapping[str, str]) -> Asset:
        """Find the file that a link's query was signed for.

        Raises:
            AssetMissing: there is none, or the signature is wrong or too old; the answer does not tell which.
        """
        async with self._database.reading() as connection:
            asset = await find_asset(connection, file_id, team_id=None)
        if asset is None or not self._signer.verify(file_id, query, asset.team_id, datetime.now(UTC)):
            raise _no_such_file(file_id)
        return asset


def _no_such_file(file_id: str, param: str = "id") -> AssetMissing:
    return AssetMissing(f"There is no file {file_id!r}.", param=param)
