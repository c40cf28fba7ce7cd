"""Files as clients see them: a team's own by key, and anybody's by a signed link."""

from collections.abc import Mapping
from datetime import UTC, datetime

from app.assets.errors import AssetMissing
from app.assets.links import LinkSigner
from app.assets.records import Asset
from app.assets.repository import find_asset
from app.db.engine import Database


class Files:
    """Finds files for those who may read them."""

    def __init__(self, database: Database, signer: LinkSigner) -> None:
        self._database = database
        self._signer = signer

    async def find(self, file_id: str, team_id: str) -> Asset:
        """Find a file of a team.

        Raises:
            AssetMissing: the team has no such file, or has it no longer.
        """
        async with self._database.reading() as connection:
            asset = await find_asset(connection, file_id, team_id=team_id)
        if asset is None:
            raise _no_such_file(file_id)
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


def _no_such_file(file_id: str) -> AssetMissing:
    return AssetMissing(f"There is no file {file_id!r}.", param="id")
