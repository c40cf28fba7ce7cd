"""Where pictures are kept: a folder, or a bucket that speaks S3. Both stream, and know only keys that we made.

Storage takes finished files and hands out chunks; what a file is, and whose, is for others to know.
"""

import asyncio
import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError as ObjectStoreError
from obstore.store import S3Store

from app.assets.errors import AssetMissing, KeyRefused, StorageUnavailable
from app.domain.pictures import PictureFormat

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, S3Config

CHUNK_BYTES: Final = 192 * 1024
"""What one read hands out: large enough to make a thread's hop cheap, small enough for thousands in flight, and a
multiple of three, so that base64 of it needs no joining.
"""

_KEY: Final = re.compile(r"([0-9a-f]{2})/([0-9a-f]{2})/(\1\2[0-9a-f]{28}\.(?:png|jpg|webp|gif|svg))")
_PROBE: Final = ".probe"
# A few buffers of an upload: S3 takes no part below 5 MiB, and two in flight keep the line busy.
_PART_BYTES: Final = 5 * 1024 * 1024
_PARTS_IN_FLIGHT: Final = 2
# Errors of link(2) that say "not between these two places"; a copy works there.
_CANNOT_LINK: Final = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
)
_MIN_FREE_BYTES: Final = 2 * 1024**3
_MIN_FREE_ALONE_BYTES: Final = 256 * 1024 * 1024
_MIN_FREE_SHARE: Final = 0.05


def new_key(suffix: str) -> str:
    """Make a fresh key such as `3f/a9/3fa9….png`: 128 random bits, spread over 65,536 folders.

    Args:
        suffix: the file name's ending with its dot, as `PictureFormat.suffix` gives it.
    """
    if suffix not in {each.suffix for each in PictureFormat}:
        raise KeyRefused(f"a picture's file name does not end in {suffix!r}")
    name = secrets.token_hex(16)
    return f"{name[:2]}/{name[2:4]}/{name}{suffix}"


class Storage(Protocol):
    """A place for finished files under keys from `new_key`.

    Every method raises `KeyRefused` for any other key and `StorageUnavailable` when the place does not answer.
    """

    async def put(self, source: Path, key: str) -> None:
        """Keep a finished file; once this returns it survives a crash, and before that nobody sees it.

        `source` stays where it is and may be deleted afterwards, but never written to: on the same file system
        it shares its bytes with what is kept.
        """
        ...

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Stream `length` bytes from byte `start` on, to the end when None, in chunks of at most `CHUNK_BYTES`.

        The file is opened when the first chunk is asked for, so `AssetMissing` is raised there; ask `size` first
        where headers leave before the body. A file deleted while it streams is streamed to its end. What lies
        beyond the file's end is not there: fewer bytes come, or none.
        """
        ...

    async def size(self, key: str) -> int:
        """Count a file's bytes.

        Raises:
            AssetMissing: there is no such file.
        """
        ...

    async def delete(self, key: str) -> None:
        """Delete a file; one that is not there is fine."""
        ...

    async def check(self) -> None:
        """Prove that a file could be put now; for readiness, and before new work is accepted.

        Raises:
            StorageUnavailable: not writable, or too little space left; the message says which.
        """
        ...

    async def free_bytes(self) -> int | None:
        """How much more could be put; None where nobody can tell."""
        ...


def storage_from_url(
    url: str | None, data_dir: Path, environment: Mapping[str, str], *, is_shared: bool = True
) -> Storage:
    """Build the storage that `DARKROOM_STORAGE_URL` names; None is the folder `files` in the data directory.

    `environment` is where the usual `AWS_*` variables are looked up. `is_shared`: several processes work on it, so a
    good part of the disk is kept clear; alone, on somebody's own machine, room for the calls in flight will do.

    Raises:
        ValueError: the URL is of no kind that we know; the message says what would work.
    """
    least = _MIN_FREE_BYTES if is_shared else _MIN_FREE_ALONE_BYTES
    share = _MIN_FREE_SHARE if is_shared else 0.0
    if url is None:
        return FileStorage(data_dir / "files", min_free_bytes=least, min_free_share=share)
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.username:
        raise ValueError(f"a storage URL holds no user, query or fragment: {parts.scheme}://…")
    match parts.scheme:
        case "file" if parts.netloc in {"", "localhost"} and parts.path:
            return FileStorage(Path(unquote(parts.path)), min_free_bytes=least, min_free_share=share)
        case "s3" if parts.netloc:
            return S3Storage(parts.netloc, parts.path.strip("/"), environment)
        case _:
            raise ValueError(f"a storage URL is file:///folder or s3://bucket/prefix, not {url!r}")


class FileStorage:
    """Files in a folder. Two processes may share it, also over a network file system."""

    def __init__(
        self, root: Path, *, min_free_bytes: int = _MIN_FREE_BYTES, min_free_share: float = _MIN_FREE_SHARE
    ) -> None:
        """Create the folder where it is missing.

        Args:
            root: the folder; nothing outside it is ever touched.
            min_free_bytes: `check` wants at least so much free space ...
            min_free_share: ... and at least this share of the whole file system.
        """
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._root = root.resolve()
        self._min_free_bytes = min_free_bytes
        self._min_free_share = min_free_share

    async def put(self, source: Path, key: str) -> None:
        """See `Storage.put`."""
        await asyncio.to_thread(self._put, source, key)

    async def open(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `Storage.open`."""
        file = await asyncio.to_thread(self._open, key)
        end = None if length is None else start + length
        while end is None or start < end:
            wanted = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - start)
            chunk = file.read_at_once(start, wanted)
            if chunk is None:
                chunk = await asyncio.to_thread(file.read, start, wanted)
            if not chunk:
                return
            start += len(chunk)
            yield chunk

    async def size(self, key: str) -> int:
        """See `Storage.size`."""
        file = await asyncio.to_thread(self._open, key)
        return file.size_bytes

    async def delete(self, key: str) -> None:
        """See `Storage.delete`."""
        await asyncio.to_thread(self._delete, key)

    async def check(self) -> None:
        """See `Storage.check`."""
        await asyncio.to_thread(self._check)

    async def free_bytes(self) -> int | None:
        """See `Storage.free_bytes`."""
        with _translated(reading=False):
            return (await asyncio.to_thread(shutil.disk_usage, self._root)).free

    def _put(self, source: Path, key: str) -> None:
        # Opened outside the translation: a source that is not there is a bug, not a failing storage.
        with (
            source.open("rb") as given,
            _translated(reading=False),
            self._folder(key, create=True) as (folder, name),
        ):
            temporary = f".{secrets.token_hex(8)}.part"
            try:
                if not _linked(source, folder, temporary):
                    _copied(given, folder, temporary)
                _made_durable(folder, temporary)
                # Both names may be links to one file already, when a put is repeated: then rename does nothing
                # and leaves the temporary name to be removed below.
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            finally:
                _removed(folder, temporary)

    def _open(self, key: str) -> "_OpenFile":
        with _translated(), self._folder(key) as (folder, name):
            # Without O_NONBLOCK, a pipe put in a file's place would hold the thread for ever.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return _OpenFile(os.open(name, flags, dir_fd=folder))

    def _delete(self, key: str) -> None:
        try:
            with _translated(), self._folder(key) as (folder, name):
                os.unlink(name, dir_fd=folder)
        except AssetMissing:
            return

    def _check(self) -> None:
        if not self._root.is_dir():
            raise StorageUnavailable("storage failed: its folder is gone")
        with _translated(reading=False):
            probe = self._root / f".{secrets.token_hex(8)}.part"
            try:
                probe.write_bytes(b"probe")
            finally:
                probe.unlink(missing_ok=True)
            space = shutil.disk_usage(self._root)
        needed = max(self._min_free_bytes, int(space.total * self._min_free_share))
        if space.free < needed:
            raise StorageUnavailable(
                f"storage is short of space: {space.free} bytes are free, {needed} are kept clear"
            )

    @contextmanager
    def _folder(self, key: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Open the folder of a key step by step, never through a symbolic link; yields it and the file's name."""
        match = _KEY.fullmatch(key)
        if match is None:
            raise KeyRefused(f"not a storage key of ours: {key!r}")
        try:
            folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise StorageUnavailable("storage failed: its folder is gone") from exc
        try:
            for shard in match.group(1, 2):
                if create:
                    _made_folder(folder, shard)
                inner = _entered(folder, shard)
                os.close(folder)
                folder = inner
            yield folder, match[3]
        finally:
            os.close(folder)


class S3Storage:
    """Files in a bucket of any service that speaks S3."""

    def __init__(self, bucket: str, prefix: str, environment: Mapping[str, str]) -> None:
        """Connect to nothing yet; the first call does.

        Args:
            bucket: must exist.
            prefix: comes before every key; may be empty.
            environment: where the usual `AWS_*` variables are looked up.
        """
        self._store = S3Store(
            bucket,
            prefix=prefix or None,
            config=_s3_config(environment),
            client_options=_s3_client(environment),
            retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=60)},
        )

    async def put(self, source: Path, key: str) -> None:
        """See `Storage.put`."""
        # Asked first: a source that is not there is a bug, not a failing storage.
        await asyncio.to_thread(source.stat)
        with _translated(reading=False):
            await self._store.put_async(
                _known(key), source, chunk_size=_PART_BYTES, max_concurrency=_PARTS_IN_FLIGHT
            )

    async def open(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `Storage.open`."""
        options: GetOptions = {}
        if start or length is not None:
            size_bytes = await self.size(key)
            end = size_bytes if length is None else min(size_bytes, start + length)
            # S3 answers an empty range with an error, not with nothing.
            if start >= end:
                return
            options["range"] = (start, end)
        with _translated():
            found = await self._store.get_async(_known(key), options=options)
            async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                # Chunks grow to whatever the network had ready; those who read on count on small ones.
                for offset in range(0, len(chunk), CHUNK_BYTES):
                    yield bytes(chunk[offset : offset + CHUNK_BYTES])

    async def size(self, key: str) -> int:
        """See `Storage.size`."""
        with _translated():
            return (await self._store.head_async(_known(key)))["size"]

    async def delete(self, key: str) -> None:
        """See `Storage.delete`."""
        try:
            with _translated():
                await self._store.delete_async(_known(key))
        except AssetMissing:
            return

    async def check(self) -> None:
        """See `Storage.check`."""
        with _translated(reading=False):
            await self._store.put_async(_PROBE, b"probe")

    async def free_bytes(self) -> int | None:
        """See `Storage.free_bytes`; a bucket has no end."""
        return None


class _OpenFile:
    """A file that is closed when the last user lets go of it.

    A stream may be cancelled while a thread still reads for it. If the stream closed the file then, its number
    could be given to another file, or a connection, under that thread's hands.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._can_tell = sys.platform == "linux"
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyRefused("a storage key leads to something that is not a file")
        self.size_bytes = status.st_size

    def read(self, start: int, length: int) -> bytes:
        with _translated():
            return os.pread(self._descriptor, length, start)

    def read_at_once(self, start: int, length: int) -> bytes | None:
        """Read what the system has in memory; None when it would have to wait for the disk, or cannot say."""
        if not self._can_tell:
            return None
        buffer = bytearray(length)
        try:
            read = os.preadv(self._descriptor, [buffer], start, os.RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError:
            self._can_tell = False
            return None
        return bytes(memoryview(buffer)[:read])

    def __del__(self) -> None:
        os.close(self._descriptor)


@contextmanager
def _translated(*, reading: bool = True) -> Iterator[None]:
    """Turn the errors of the system and of the object store into ours."""
    try:
        yield
    except FileNotFoundError as exc:
        if not reading:
            raise StorageUnavailable("storage failed: its folder or bucket is gone") from exc
        raise AssetMissing("the file is no longer in storage") from exc
    except OSError as exc:
        if exc.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise KeyRefused("a storage key leads through a symbolic link") from exc
        raise StorageUnavailable(f"storage failed: {exc.strerror or type(exc).__name__}") from exc
    except ObjectStoreError as exc:
        raise StorageUnavailable(f"storage failed: {type(exc).__name__}") from exc


def _known(key: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise KeyRefused(f"not a storage key of ours: {key!r}")
    return key


def _entered(folder: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def _made_folder(folder: int, name: str) -> None:
    try:
        os.mkdir(name, mode=0o750, dir_fd=folder)
    except FileExistsError:
        return
    os.fsync(folder)


def _linked(source: Path, folder: int, name: str) -> bool:
    try:
        os.link(source.resolve(), name, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as exc:
        if exc.errno in _CANNOT_LINK:
            return False
        raise
    return True


def _copied(given: BinaryIO, folder: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o640, dir_fd=folder), "wb") as kept:
        size_bytes = os.fstat(given.fileno()).st_size
        if sys.platform == "linux" and size_bytes:
            # A disk that is too full says so before the copy, not in the middle of it.
            os.posix_fallocate(kept.fileno(), 0, size_bytes)
        shutil.copyfileobj(given, kept, CHUNK_BYTES)


def _made_durable(folder: int, name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fchmod(descriptor, 0o640)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _removed(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _s3_config(environment: Mapping[str, str]) -> "S3Config":
    given = {
        "access_key_id": environment.get("AWS_ACCESS_KEY_ID"),
        "secret_access_key": environment.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": environment.get("AWS_SESSION_TOKEN"),
        "region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
        "endpoint": _s3_endpoint(environment),
        "role_arn": environment.get("AWS_ROLE_ARN"),
        "role_session_name": environment.get("AWS_ROLE_SESSION_NAME"),
        "web_identity_token_file": environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"),
        "container_credentials_relative_uri": environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        "container_credentials_full_uri": environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        "container_authorization_token_file": environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    }
    config: S3Config = {}
    for name, value in given.items():
        if value:
            config[name] = value  # type: ignore[literal-required]  # the names above are the config's own
    return config


def _s3_endpoint(environment: Mapping[str, str]) -> str | None:
    return environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or None


def _s3_client(environment: Mapping[str, str]) -> "ClientConfig":
    return {
        # A silent service is given up after half a minute; a whole transfer may last as long as its reader is slow.
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=30),
        "timeout": timedelta(hours=1),
        # An operator who writes http:// into the endpoint means it.
        "allow_http": (_s3_endpoint(environment) or "").startswith("http://"),
    }
