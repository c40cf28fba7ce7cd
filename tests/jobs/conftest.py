"""Jobs on a real database, and the moves on them, without a worker."""

import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from app.assets.records import Picture
from app.db.engine import Database
from app.db.tables.attempts import attempts
from app.db.tables.jobs import jobs
from app.db.tables.teams import teams
from app.domain.money import Certainty
from app.domain.pictures import PictureFormat
from app.domain.requests import ImageRequest
from app.jobs import repository
from app.jobs.openings import NewAttempt, UpstreamLimits
from app.jobs.records import Attempt, Job, request_to_json
from app.jobs.transitions import Transitions
from app.kit.ids import new_id

NO_LIMITS = UpstreamLimits(max_concurrency=1000, requests_per_minute=None, images_per_minute=None)
PRICE = 6_000


class Store:
    """A database with the moves on it, and the shortcuts that tests need."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.moves = Transitions(database, lease_s=30.0)
        self._tickets = itertools.count()

    async def team(self, name: str = "default") -> str:
        """A team's id; the team is made when it is not there."""
        team_id = f"team_{name}"
        async with self.database.transaction() as connection:
            if (await connection.execute(select(teams.c.id).where(teams.c.id == team_id))).first() is None:
                await connection.execute(insert(teams).values(id=team_id, name=name, limits={}))
        return team_id

    async def job(
        self, team: str = "default", *, n: int = 1, cancel_after_s: float | None = None, **columns: Any
    ) -> str:
        """Queue a job, and return its id."""
        job_id = new_id("job")
        values: dict[str, Any] = {
            "id": job_id,
            "team_id": await self.team(team),
            "api_key_id": "key_1",
            "operation": "image.generation",
            "dialect": "openai",
            "model": "gpt-image-2",
            "catalog_version": "test",
            "request": request_to_json(ImageRequest(model="gpt-image-2", prompt="a boat", n=n)),
            "n": n,
            "fingerprint": b"fingerprint",
            "metadata": {},
            "priority": 1,
            "to_buy": n,
            "spare": 0,
            "picture_hold_micros": PRICE,
        }
        async with self.database.transaction() as connection:
            await repository.insert_job(
                connection,
                {**values, **columns},
                deadline_s=600.0,
                ttl_s=3600.0,
                held_s=10.0,
                cancel_after_s=cancel_after_s,
            )
        return job_id

    async def claim(self, owner: str = "worker-1") -> Job:
        """Take the one runnable job."""
        (job,) = await self.moves.claim(owner, 1)
        return job

    async def open(
        self, job: Job, *shares: int, upstream: str = "openai", round_number: int = 1
    ) -> tuple[Attempt, ...]:
        """Open attempts for these numbers of pictures."""
        planned = [
            NewAttempt(id=new_id("att"), upstream=upstream, target={"model": "gpt-image-2"}, pictures=share)
            for share in shares or (job.n,)
        ]
        return await self.moves.open_attempts(
            job.id, job.lease_token, planned, round_number=round_number, limits=NO_LIMITS, timeout_s=330.0
        )

    async def succeed(self, attempt: Attempt, made: int | None = None) -> Job:
        """Deliver an attempt's pictures."""
        pictures = [
            Picture(
                file_id=new_id("file"),
                key=new_id("key"),
                format=PictureFormat.PNG,
                width_px=1024,
                height_px=1024,
                size_bytes=10,
                sha256=b"",
            )
            for _ in range(attempt.pictures if made is None else made)
        ]
        return await self.moves.succeed(
            attempt,
            pictures,
            usage=None,
            resolved={},
            cost_micros=PRICE,
            certainty=Certainty.ESTIMATED,
            max_rounds=4,
        )

    async def look(self, job_id: str) -> Job:
        """The job as it stands."""
        async with self.database.reading() as connection:
            job = await repository.find(connection, job_id, team_id=None)
        assert job is not None
        return job

    async def attempts(self, job_id: str) -> list[Attempt]:
        """The job's attempts as they stand."""
        async with self.database.reading() as connection:
            return await repository.attempts_of(connection, [job_id])

    async def age(self, job_id: str, seconds: float) -> None:
        """Move a job and its attempts into the past, as if so many seconds had gone by."""
        past = timedelta(seconds=seconds)
        job = await self.look(job_id)
        async with self.database.transaction() as connection:
            lease = {} if job.lease_until is None else {"lease_until": job.lease_until - past}
            times = {
                "created_at": job.created_at - past,
                "available_at": job.available_at - past,
                "deadline_at": job.deadline_at - past,
                "expires_at": job.expires_at - past,
                "cancel_at": None if job.cancel_at is None else job.cancel_at - past,
            }
            await connection.execute(update(jobs).where(jobs.c.id == job_id).values(**times, **lease))
            for attempt in await repository.attempts_of(connection, [job_id]):
                moved = {"opened_at": attempt.opened_at - past, "outcome_due": attempt.outcome_due - past}
                if attempt.finished_at is None:
                    await connection.execute(
                        update(attempts).where(attempts.c.id == attempt.id).values(**moved)
                    )


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """Jobs on SQLite and on Postgres in turn."""
    database = Database(database_url)
    yield Store(database)
    await database.close()


@pytest.fixture
async def postgres_store(postgres_url: str) -> AsyncIterator[Store]:
    """Jobs on Postgres, where several connections write at once."""
    database = Database(postgres_url)
    yield Store(database)
    await database.close()
