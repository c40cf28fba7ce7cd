"""What is put comes back, whole or in part; a folder never reaches outside itself."""

import asyncio
import os
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.assets.errors import AssetMissing, KeyRefused, StorageUnavailable
from app.assets.storage import CHUNK_BYTES, FileStorage, S3Storage, Storage, new_key, storage_from_url
from tests.assets.conftest import Bucket

# More than two upload parts and not a multiple of anything.
CONTENT = os.urandom(CHUNK_BYTES) * 45 + b"end"


def written(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / "finished"
    path.write_bytes(content)
    return path


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def joined(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def test_what_is_put_comes_back_in_small_chunks(storage: Storage, tmp_path: Path) -> None:
    key = new_key(".png")
    await storage.put(written(tmp_path), key)

    chunks = [chunk async for chunk in storage.open(key)]

    assert b"".join(chunks) == CONTENT
    assert max(map(len, chunks)) <= CHUNK_BYTES
    assert await storage.size(key) == len(CONTENT)


@pytest.mark.parametrize(
    "start, length",
    [(0, 0), (0, 1), (5, 10), (len(CONTENT) - 3, None), (CHUNK_BYTES - 1, 2), (100, len(CONTENT)), (len(CONTENT), None),
     (len(CONTENT) + 7, 3)],
)  # fmt: skip
async def test_a_part_is_the_same_as_in_the_whole(
    storage: Storage, tmp_path: Path, start: int, length: int | None
) -> None:
    key = new_key(".webp")
    await storage.put(written(tmp_path), key)

    end = None if length is None else start + length
    assert await joined(storage.open(key, start=start, length=length)) == CONTENT[start:end]


async def test_an_empty_file_is_kept_as_one(storage: Storage, tmp_path: Path) -> None:
    key = new_key(".png")
    await storage.put(written(tmp_path, b""), key)

    assert await storage.size(key) == 0
    assert await joined(storage.open(key)) == b""


async def test_what_is_not_there_is_missing_and_may_be_deleted(storage: Storage) -> None:
    key = new_key(".png")

    with pytest.raises(AssetMissing):
        await storage.size(key)
    with pytest.raises(AssetMissing):
        await joined(storage.open(key))
    with pytest.raises(AssetMissing):
        await joined(storage.open(key, start=1, length=1))
    await storage.delete(key)


async def test_deleted_is_gone_and_deleting_again_is_fine(storage: Storage, tmp_path: Path) -> None:
    key = new_key(".jpg")
    await storage.put(written(tmp_path), key)

    await storage.delete(key)
    await storage.delete(key)

    with pytest.raises(AssetMissing):
        await storage.size(key)


async def test_a_put_may_be_repeated(storage: Storage, tmp_path: Path) -> None:
    key = new_key(".png")
    source = written(tmp_path)

    await storage.put(source, key)
    await storage.put(source, key)

    assert await storage.size(key) == len(CONTENT)
    assert files_below(tmp_path / "store") == [tmp_path / "store" / key] or isinstance(storage, S3Storage)


async def test_a_source_that_is_not_there_is_a_bug_not_a_failing_storage(
    storage: Storage, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        await storage.put(tmp_path / "nothing", new_key(".png"))


@pytest.mark.parametrize(
    "key",
    ["", "..", "../../etc/passwd", "/etc/passwd", "ab/cd/../../x.png", "ab/cd/" + "0" * 32 + ".png",
     "ab/cd/abcd" + "0" * 28 + ".png\x00", "ab/cd/abcd" + "0" * 28 + ".png\n", "ab/cd/abcd" + "0" * 28 + ".exe",
     "AB/CD/ABCD" + "0" * 28 + ".png", "ab\\cd\\abcd" + "0" * 28 + ".png", "ab/cd/abcd" + "0" * 28],
)  # fmt: skip
async def test_keys_that_we_did_not_make_are_refused(storage: Storage, tmp_path: Path, key: str) -> None:
    with pytest.raises(KeyRefused):
        await storage.put(written(tmp_path), key)
    with pytest.raises(KeyRefused):
        await joined(storage.open(key))
    with pytest.raises(KeyRefused):
        await storage.size(key)
    with pytest.raises(KeyRefused):
        await storage.delete(key)


def test_new_keys_are_spread_and_never_the_same() -> None:
    keys = {new_key(".png") for _ in range(1000)}

    assert len(keys) == 1000
    assert len({key[:2] for key in keys}) > 200
    with pytest.raises(KeyRefused):
        new_key(".png/..")


@pytest.mark.parametrize("depth", ["outer", "inner", "file"])
async def test_no_symbolic_link_is_followed(file_storage: FileStorage, tmp_path: Path, depth: str) -> None:
    key = new_key(".png")
    outside = tmp_path / "outside"
    planted = outside / key
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"secret")
    outer, inner, _ = key.split("/")
    store = tmp_path / "store"
    link, target = {
        "outer": (store / outer, outside / outer),
        "inner": (store / outer / inner, outside / outer / inner),
        "file": (store / key, planted),
    }[depth]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)

    with pytest.raises(KeyRefused):
        await joined(file_storage.open(key))
    with pytest.raises(KeyRefused):
        await file_storage.size(key)
    if depth == "file":
        await file_storage.put(written(tmp_path), key)
        assert not (store / key).is_symlink()
    else:
        with pytest.raises(KeyRefused):
            await file_storage.put(written(tmp_path), key)
        with pytest.raises(KeyRefused):
            await file_storage.delete(key)
    assert planted.read_bytes() == b"secret"


async def test_a_pipe_in_a_files_place_is_refused_at_once(file_storage: FileStorage, tmp_path: Path) -> None:
    key = new_key(".png")
    place = tmp_path / "store" / key
    place.parent.mkdir(parents=True)
    os.mkfifo(place)

    with pytest.raises(KeyRefused):
        await joined(file_storage.open(key))


async def test_kept_files_are_closed_to_others_and_share_their_bytes_with_the_source(
    file_storage: FileStorage, tmp_path: Path
) -> None:
    key = new_key(".png")
    source = written(tmp_path)
    await file_storage.put(source, key)
    kept = tmp_path / "store" / key

    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert kept.samefile(source)
    source.unlink()
    assert await file_storage.size(key) == len(CONTENT)


@pytest.fixture
def foreign_source(tmp_path: Path) -> Iterator[Path]:
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at hand")
    with tempfile.NamedTemporaryFile(dir=shared_memory, prefix="darkroom-") as source:
        source.write(CONTENT)
        source.flush()
        yield Path(source.name)


async def test_a_file_from_another_file_system_is_copied(tmp_path: Path, foreign_source: Path) -> None:
    storage = FileStorage(tmp_path / "store")
    key = new_key(".png")
    await storage.put(foreign_source, key)

    assert await joined(storage.open(key)) == CONTENT
    assert stat.S_IMODE((tmp_path / "store" / key).stat().st_mode) == 0o640


async def test_a_file_deleted_while_it_streams_is_streamed_to_its_end(
    file_storage: FileStorage, tmp_path: Path
) -> None:
    key = new_key(".png")
    await file_storage.put(written(tmp_path), key)
    stream = file_storage.open(key)
    first = await anext(stream)

    await file_storage.delete(key)

    assert first + await joined(stream) == CONTENT


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
async def test_streams_that_are_dropped_leave_no_file_open(file_storage: FileStorage, tmp_path: Path) -> None:
    key = new_key(".png")
    await file_storage.put(written(tmp_path), key)

    def opened() -> int:
        return sum(
            os.fspath(each.readlink()).endswith(key)
            for each in Path("/proc/self/fd").iterdir()
            if each.is_symlink()
        )

    stream = file_storage.open(key)
    await anext(stream)
    assert opened() == 1
    del stream

    # Dropping hands the stream to the event loop, which closes it in a turn or two.
    async with asyncio.timeout(5):
        while opened():  # noqa: ASYNC110  # closing a dropped stream is announced to nobody
            await asyncio.sleep(0)


async def test_check_passes_where_files_can_be_put_and_leaves_nothing(
    storage: Storage, tmp_path: Path
) -> None:
    await storage.check()

    assert files_below(tmp_path / "store") == []


async def test_check_refuses_a_disk_below_its_watermark(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="short of space"):
        await FileStorage(tmp_path, min_free_bytes=2**62).check()
    with pytest.raises(StorageUnavailable, match="short of space"):
        await FileStorage(tmp_path, min_free_bytes=0, min_free_share=1.0).check()


async def test_a_folder_that_is_gone_is_unavailable_not_empty(
    file_storage: FileStorage, tmp_path: Path
) -> None:
    (tmp_path / "store").rmdir()

    with pytest.raises(StorageUnavailable):
        await file_storage.check()
    with pytest.raises(StorageUnavailable):
        await file_storage.size(new_key(".png"))
    with pytest.raises(StorageUnavailable):
        await file_storage.put(written(tmp_path), new_key(".png"))


async def test_a_bucket_that_does_not_exist_is_unavailable(bucket: Bucket) -> None:
    storage = S3Storage("no-such-bucket", "", bucket.environment)

    with pytest.raises(StorageUnavailable):
        await storage.check()


async def test_a_service_that_refuses_connections_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests-secret",
    }

    with pytest.raises(StorageUnavailable):
        await S3Storage("bucket", "", environment).size(new_key(".png"))


async def test_the_url_names_the_storage(tmp_path: Path, bucket: Bucket) -> None:
    key = new_key(".png")
    await storage_from_url(None, tmp_path / "data", {}).put(written(tmp_path), key)
    assert (tmp_path / "data" / "files" / key).is_file()

    folder = tmp_path / "a folder"
    await storage_from_url(f"file://{folder.as_posix().replace(' ', '%20')}", tmp_path, {}).put(
        written(tmp_path), key
    )
    assert (folder / key).is_file()

    await storage_from_url(f"s3://{bucket.name}/deep/er/", tmp_path, bucket.environment).put(
        written(tmp_path), key
    )
    assert await S3Storage(bucket.name, "deep/er", bucket.environment).size(key) == len(CONTENT)


@pytest.mark.parametrize(
    "url", ["", "data", "/srv/files", "ftp://host/x", "s3://", "s3:///prefix", "file://host/x"]
)
def test_other_urls_are_refused_with_what_would_work(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match=r"file:///folder or s3://bucket/prefix"):
        storage_from_url(url, tmp_path, {})


def test_a_secret_in_the_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no user") as caught:
        storage_from_url("s3://key:secret@bucket/x", tmp_path, {})
    assert "secret" not in str(caught.value)
