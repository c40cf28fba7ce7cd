"""What is deleted after its time, and what a job still needs although the time for results is short."""

from sqlalchemy import update

from app.assets.records import AssetKind, Picture
from app.assets.repository import assets_of_jobs, expired_assets
from app.db.tables.jobs import jobs
from app.db.types import from_now
from app.domain.pictures import PictureFormat
from tests.jobs.conftest import Store
from tests.jobs.shop import front_door, submission


async def expired(store: Store) -> int:
    async with store.database.reading() as connection:
        return len(await expired_assets(connection, limit=10))


async def test_pictures_in_hand_are_kept_for_a_job_that_takes_longer_than_results_live(store: Store) -> None:
    job_id = await store.job(n=2)
    first, second = await store.open(await store.claim(), 1, 1)
    async with store.database.transaction() as connection:
        times = {"created_at": from_now(-2.0), "expires_at": from_now(-1.0)}
        await connection.execute(update(jobs).where(jobs.c.id == job_id).values(**times))
    await store.succeed(first)
    assert await expired(store) == 0
    await store.succeed(second)
    async with store.database.reading() as connection:
        kept = await assets_of_jobs(connection, [job_id], [AssetKind.RESULT], living=True)
    assert [item.expires_at for item in kept] == [(await store.look(job_id)).expires_at] * 2


async def test_inputs_outlive_every_call_of_their_job_however_short_results_live(store: Store) -> None:
    await store.team()
    picture = Picture(
        file_id="file_1",
        key="key_1",
        format=PictureFormat.PNG,
        width_px=1024,
        height_px=1024,
        size_bytes=10,
        sha256=b"",
    )
    door = front_door(store.database, result_ttl_s=1.0)
    job = (await door.submit(submission("team_default", inputs=[picture]))).job
    async with store.database.reading() as connection:
        (kept,) = await assets_of_jobs(connection, [job.id], [AssetKind.INPUT])
    assert (job.expires_at - job.created_at).total_seconds() < 2
    assert (kept.expires_at - job.deadline_at).total_seconds() > 3600
