"""New jobs are kept out while their pictures could not be kept."""

from pathlib import Path

import pytest

from app.assets.errors import StorageFull
from app.assets.gate import StorageGate
from app.assets.storage import FileStorage


async def test_a_job_enters_while_there_is_room(tmp_path: Path) -> None:
    await StorageGate(FileStorage(tmp_path, min_free_bytes=0, min_free_share=0)).enter()


async def test_no_job_enters_a_storage_that_is_nearly_full(tmp_path: Path) -> None:
    gate = StorageGate(FileStorage(tmp_path, min_free_bytes=2**62, min_free_share=0))
    with pytest.raises(StorageFull, match="short of space"):
        await gate.enter()
    with pytest.raises(StorageFull):
        await gate.enter()
