"""Checking a picture's file while it is read once, and keeping it: the way of every picture that an upstream made.

The file's structure, checksums and end are checked and its bytes hashed, without decoding them.
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from app.assets.containers import OnPart, Reader, sniff, walk
from app.assets.errors import PictureBroken
from app.assets.storage import Storage, new_key
from app.domain.pictures import PictureFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What a file's structure says of the picture in it."""

    format: PictureFormat
    width_px: int
    """As the header declares it; of an animation, the canvas. SVG: CSS pixels."""
    height_px: int
    length_bytes: int
    """Up to and including the end marker. What follows in the file is no part of the picture."""
    excess_bytes: int
    """How much follows."""
    sha256: bytes
    """Of these `length_bytes` bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A picture that is in storage."""

    key: str
    sha256: bytes
    size_bytes: int
    format: PictureFormat
    width_px: int
    height_px: int


def inspect(path: Path, *, on_part: OnPart = lambda _name, _start, _end: None) -> Inspected:
    """Read a picture's file once and check that it is one whole picture. Blocks: call it in a thread.

    Dimensions are not judged; a header may declare any.

    Raises:
        PictureBroken: the file is empty, of no known format, cut off or damaged.
    """
    with path.open("rb") as file:
        reader = Reader(file)
        head = reader.peek(1024)
        if not head:
            raise PictureBroken("is empty")
        kind = sniff(head)
        if kind is None:
            raise PictureBroken("is of no picture format that we know")
        size = walk(reader, kind, on_part)
        return Inspected(
            format=kind,
            width_px=size.width_px,
            height_px=size.height_px,
            length_bytes=reader.position,
            excess_bytes=os.fstat(file.fileno()).st_size - reader.position,
            sha256=reader.digest(),
        )


async def keep(source: Path, storage: Storage, *, inspected: Inspected | None = None) -> Kept:
    """Check a finished file, cut what follows its end marker, and put it into storage under a fresh key.

    `source` stays the caller's to remove and must not be written to afterwards (see `Storage.put`).
    `inspected` is what `inspect` said of this very file, when the caller had to look before.

    Raises:
        PictureBroken: the file is not one whole picture; nothing was stored.
        StorageUnavailable: storage did not take it; trying again is fine.
    """
    found = await asyncio.to_thread(inspect, source) if inspected is None else inspected
    # Other formats hide behind an end marker, where a second program would read what this one did not check.
    if found.excess_bytes:
        await asyncio.to_thread(os.truncate, source, found.length_bytes)
    key = new_key(found.format.suffix)
    await storage.put(source, key)
    return Kept(
        key=key,
        sha256=found.sha256,
        size_bytes=found.length_bytes,
        format=found.format,
        width_px=found.width_px,
        height_px=found.height_px,
    )
