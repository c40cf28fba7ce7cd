"""Inputs from files, links, data URLs and earlier files: each becomes a copy in storage, or leaves nothing."""

import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from app.assets.errors import ImageTooLarge, InvalidImage, InvalidUrl, MissingFile, UnsupportedFile
from app.assets.files import Files
from app.assets.inputs import Inputs
from app.assets.links import LinkSigner
from app.assets.storage import FileStorage
from app.db.engine import Database
from app.db.tables.assets import assets
from app.db.tables.teams import teams
from app.domain.errors import GatewayError
from app.domain.pictures import PictureFormat
from app.kit.addresses import parse_networks
from app.kit.http import GuardedClient
from tests.assets.pictures import SAMPLES, SVG, drawing, opened, saved
from tests.simulators.wire import Answer, Origin, Request

PNG = SAMPLES["png"]
LARGE = saved(drawing(200, 200, "RGBA"), "PNG")
assert len(LARGE) > 2_000


class Shelf:
    """Serves one picture, or whatever else the path says."""

    def accepted(self) -> None:
        """Let every connection in."""

    def announced(self, request: Request) -> None:
        """Let every request in."""

    async def handle(self, request: Request) -> Answer:
        """Answer as the path says."""
        match request.path:
            case "/large":
                return Answer(pieces=(LARGE,))
            case "/loop":
                return Answer(status=302, headers={"location": "/loop"})
            case "/404":
                return Answer(status=404)
            case _:
                return Answer(pieces=(PNG,))


class Counter:
    """Inputs with everything behind them."""

    def __init__(self, inputs: Inputs, files: Files, database: Database, folder: Path) -> None:
        self.inputs = inputs
        self.files = files
        self.database = database
        self._folder = folder

    def stored(self) -> list[Path]:
        """What is in storage."""
        return [path for path in (self._folder / "store").rglob("*") if path.is_file()]


@pytest.fixture
async def counter(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Counter]:
    database = Database(sqlite_url)
    storage = FileStorage(tmp_path / "store", min_free_bytes=0, min_free_share=0)
    client = GuardedClient(allow_networks=parse_networks(["127.0.0.0/8"]))
    inputs = Inputs(database, storage, client, tmp_path / "spool", max_bytes=1_800, max_pixels=1_000_000)
    files = Files(database, storage, LinkSigner((b"s" * 32,), "http://darkroom.test"))
    async with database.transaction() as connection:
        await connection.execute(
            insert(teams), [{"id": name, "name": name, "limits": {}} for name in ("ours", "theirs")]
        )
    yield Counter(inputs, files, database, tmp_path)
    await client.aclose()
    await database.close()


@pytest.fixture
async def shelf() -> AsyncIterator[str]:
    """The address of a place that serves pictures."""
    origin = Origin(Shelf())
    await origin.start()
    yield origin.url
    await origin.stop()


async def test_a_file_is_taken_in_with_what_can_be_known_of_it(counter: Counter) -> None:
    with counter.inputs.workspace() as folder:
        path = folder / "upload"
        path.write_bytes(SAMPLES["png-alpha-text"])
        taken = await counter.inputs.take(path, param="image")
    known = taken.as_input()
    assert (known.format, known.width_px, known.height_px, known.has_alpha) == (
        PictureFormat.PNG,
        40,
        30,
        True,
    )
    (kept,) = counter.stored()
    assert kept.stat().st_size == known.size_bytes
    assert not folder.exists()
    await counter.inputs.discard([taken])
    assert counter.stored() == []


async def test_a_link_and_a_data_url_bring_the_same_picture(counter: Counter, shelf: str) -> None:
    data_url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    with counter.inputs.workspace() as folder:
        taken = [
            await counter.inputs.take_link(url, folder, param="image") for url in (f"{shelf}/a.png", data_url)
        ]
    assert taken[0].picture.sha256 == taken[1].picture.sha256
    assert taken[0].picture.file_id != taken[1].picture.file_id
    assert all(opened(path).tobytes() == opened(PNG).tobytes() for path in counter.stored())


@pytest.mark.parametrize(
    "link, error",
    [
        ("{shelf}/404", InvalidUrl),
        ("{shelf}/loop", InvalidUrl),
        ("{shelf}/large", InvalidUrl),
        ("http://169.254.169.254/latest/meta-data", InvalidUrl),
        ("http://[::1]:1/", InvalidUrl),
        ("http://10.0.0.1/", InvalidUrl),
        ("ftp://pictures.test/a.png", InvalidUrl),
        ("/etc/passwd", InvalidUrl),
        ("", InvalidUrl),
        ("data:image/png,hello", InvalidUrl),
        ("data:image/png;base64,!!", InvalidImage),
        (f"data:image/png;base64,{base64.b64encode(SVG).decode()}", UnsupportedFile),
        (f"data:image/png;base64,{base64.b64encode(LARGE).decode()}", ImageTooLarge),
    ],
)
async def test_a_link_that_cannot_be_an_input_is_refused_and_leaves_nothing(
    counter: Counter, shelf: str, link: str, error: type[GatewayError]
) -> None:
    with counter.inputs.workspace() as folder, pytest.raises(error) as caught:
        await counter.inputs.take_link(link.format(shelf=shelf), folder, param="images[0]")
    assert caught.value.param == "images[0]"
    assert "169.254" not in caught.value.message
    assert counter.stored() == []
    assert not folder.exists()


async def an_upload(counter: Counter, team_id: str) -> str:
    with counter.inputs.workspace() as folder:
        path = folder / "upload"
        path.write_bytes(PNG)
        taken = await counter.inputs.take(path, param="file")
    return (await counter.files.upload(taken, team_id, filename="a.png", purpose="vision")).id


async def test_an_earlier_file_is_copied_so_that_its_deletion_harms_no_job(counter: Counter) -> None:
    file_id = await an_upload(counter, "ours")
    with counter.inputs.workspace() as folder:
        taken = await counter.inputs.take_file(file_id, "ours", folder, param="images[0]")
    await counter.files.delete(file_id, "ours")
    (left,) = counter.stored()
    assert left.stat().st_size == taken.picture.size_bytes


async def test_a_file_of_another_team_one_that_expired_and_none_are_all_missing(counter: Counter) -> None:
    theirs, expired = await an_upload(counter, "theirs"), await an_upload(counter, "ours")
    asset = await counter.files.find(expired, "ours")
    async with counter.database.transaction() as connection:
        past = asset.created_at - timedelta(days=1)
        await connection.execute(update(assets).where(assets.c.id == expired).values(expires_at=past))
    with counter.inputs.workspace() as folder:
        for file_id in (theirs, expired, "file_none"):
            with pytest.raises(MissingFile):
                await counter.inputs.take_file(file_id, "ours", folder, param="images[0]")
