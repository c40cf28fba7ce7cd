"""Taking in the pictures of a request: from a form, a data URL, a link or an earlier file, each into storage as a
fresh copy without metadata, before its job exists.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pybase64

from app.assets.errors import InvalidImage, InvalidUrl, MissingFile
from app.assets.intake import examine
from app.assets.records import Picture
from app.assets.repository import find_asset
from app.assets.storage import Storage, new_key
from app.db.engine import Database
from app.domain.requests import InputPicture
from app.kit.http import DownloadRefused, DownloadTooLarge, EgressDenied, GuardedClient, NoAnswer
from app.kit.ids import new_id

FETCH_WITHIN_S: Final = 30.0
"""How long a link that a client gave may take, redirects included (contract 11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An input that is in storage; its row is written with its job, or with its upload."""

    picture: Picture
    has_alpha: bool

    def as_input(self) -> InputPicture:
        """The input as a request names it."""
        return InputPicture(
            file_id=self.picture.file_id,
            format=self.picture.format,
            width_px=self.picture.width_px,
            height_px=self.picture.height_px,
            size_bytes=self.picture.size_bytes,
            has_alpha=self.has_alpha,
        )


class Inputs:
    """Takes pictures in from clients, who may hand in anything."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        client: GuardedClient,
        spool: Path,
        *,
        max_bytes: int,
        max_pixels: int,
    ) -> None:
        """Join the parts.

        Args:
            database: where earlier files are looked up.
            storage: where pictures go, and earlier files come from.
            client: fetches links, from public addresses only.
            spool: folder for what is on its way.
            max_bytes: of one picture.
            max_pixels: of one picture, width times height.
        """
        self._database = database
        self._storage = storage
        self._client = client
        self._spool = spool
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Lend a folder for one request's files; it is removed with all that is in it."""
        self._spool.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._spool, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    async def take(self, path: Path, *, param: str) -> Taken:
        """Check a file that a client handed in, and store it without its metadata.

        `param` is the request's field that is blamed when the picture is refused.

        Raises:
            GatewayError: it is no picture that can be an input; the code and sentence say why.
            StorageUnavailable: storage did not take it.
        """
        examined = await examine(path, max_pixels=self._max_pixels, max_bytes=self._max_bytes, param=param)
        key = new_key(examined.format.suffix)
        await self._storage.put(examined.path, key)
        picture = Picture(
            file_id=new_id("file"),
            key=key,
            format=examined.format,
            width_px=examined.width_px,
            height_px=examined.height_px,
            size_bytes=examined.size_bytes,
            sha256=examined.sha256,
        )
        return Taken(picture=picture, has_alpha=examined.has_alpha)

    async def take_link(self, url: str, folder: Path, *, param: str) -> Taken:
        """Fetch a picture that a client named by an `http(s)` or a short `data:` URL, and take it in.

        Raises:
            InvalidUrl: it cannot be fetched; the answer never says more, so that nobody scans a network with it.
            GatewayError: what came is no picture that can be an input.
        """
        if url.startswith("data:"):
            return await self.take(_decoded(url, folder, param), param=param)
        try:
            file = await self._client.download(
                url, folder, max_bytes=self._max_bytes, timeout_s=FETCH_WITHIN_S
            )
        except (EgressDenied, NoAnswer, DownloadRefused) as exc:
            raise InvalidUrl(
                "The image could not be fetched from its URL. Give a public http or https address that answers "
                f"within {FETCH_WITHIN_S:g} s, or send the image itself.",
                param=param,
            ) from exc
        except DownloadTooLarge as exc:
            raise InvalidUrl(
                f"The image behind the URL is larger than {self._max_bytes} bytes.", param=param
            ) from exc
        return await self.take(file.path, param=param)

    async def take_file(self, file_id: str, team_id: str, folder: Path, *, param: str) -> Taken:
        """Take an earlier file of the team, uploaded or made for it; a copy, so that it may expire meanwhile.

        Raises:
            MissingFile: the team has no such file, or has it no longer.
        """
        async with self._database.reading() as connection:
            asset = await find_asset(connection, file_id, team_id=team_id)
        if asset is None:
            raise MissingFile(f"There is no file {file_id!r}.", param=param)
        path = folder / new_id("copy")
        with path.open("wb") as copy:
            async for chunk in self._storage.open(asset.key):
                copy.write(chunk)
        return await self.take(path, param=param)

    async def discard(self, taken: Sequence[Taken]) -> None:
        """Remove inputs whose job never came to be."""
        for item in taken:
            await self._storage.delete(item.picture.key)


def _decoded(url: str, folder: Path, param: str) -> Path:
    head, _, encoded = url.partition(",")
    if not head.endswith(";base64"):
        raise InvalidUrl("The data URL is not base64: write 'data:image/png;base64,…'.", param=param)
    try:
        content = pybase64.b64decode(encoded, validate=True)
    except ValueError as exc:
        raise InvalidImage("The data URL holds no valid base64.", param=param) from exc
    path = folder / new_id("data")
    path.write_bytes(content)
    return path
