"""Storage of both kinds, the bucket served by moto on loopback."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from moto.server import ThreadedMotoServer

from app.assets.storage import FileStorage, S3Storage, Storage

BUCKET = "darkroom-tests"


@dataclass(frozen=True)
class Bucket:
    """A bucket that exists, and the environment by which it is reached."""

    name: str
    environment: dict[str, str]


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        httpx2.put(f"{endpoint}/{BUCKET}").raise_for_status()
        yield Bucket(
            BUCKET,
            {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "tests",
                "AWS_SECRET_ACCESS_KEY": "tests-secret",
            },
        )
    finally:
        server.stop()


@pytest.fixture
def file_storage(tmp_path: Path) -> FileStorage:
    return FileStorage(tmp_path / "store", min_free_bytes=0, min_free_share=0)


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "file":
        return FileStorage(tmp_path / "store", min_free_bytes=0, min_free_share=0)
    reached: Bucket = request.getfixturevalue("bucket")
    return S3Storage(reached.name, "some/prefix", reached.environment)
