"""What a team and its keys may do: which models, how much a minute, how many jobs at once, and for how much money.

Limits are read from the database for each request for pictures, so that a change holds at once. Where both a team and
its key have a limit, both hold.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from app.accounts import repository
from app.accounts.errors import ModelNotAllowed, QueueFull, RateLimitExceeded, RateTooSmall
from app.db.engine import Database
from app.domain.money import micros
from app.domain.rates import Rate
from app.kit.json import Json
from app.kit.limiter import Draw, Level, Limiter

MAX_QUEUED: Final = 10_000
"""Jobs that wait for a worker, per team unless it has a limit of its own: hours of work for any vendor."""
NEARLY_FULL: Final = MAX_QUEUED - 1000
"""From here on jobs are counted one after the other; more than the requests of all processes at one moment below it."""
_ROOM_AFTER_S: Final = 10.0
"""Advised when every place is taken; about the time in which a picture of low quality is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a team or of a key (contract 9). None: there is none."""

    allowed_models: frozenset[str] | None = None
    requests_per_minute: int | None = None
    images_per_minute: int | None = None
    max_jobs: int | None = None
    """Jobs that are not final, at any moment."""
    max_queued: int | None = None
    """Jobs that wait for a worker, at any moment."""
    budget_day_micros: int | None = None
    budget_month_micros: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for a caller at a moment of the database's clock."""

    team_id: str
    api_key_id: str
    key_line_id: str
    """The first of the keys that rotations put in each other's place: what is counted for one is counted for all."""
    team: Limits
    key: Limits
    at: datetime

    def allows(self, model: str) -> bool:
        """Whether this model, by its own name, may be used."""
        return all(
            limits.allowed_models is None or model in limits.allowed_models
            for limits in (self.team, self.key)
        )

    def check_model(self, model: str) -> None:
        """Refuse a model that may not be used.

        Raises:
            ModelNotAllowed: the team or the key is limited to others.
        """
        if not self.allows(model):
            message = (
                f"This API key may not use the model {model!r}. GET /v1/models lists those that it may use."
            )
            raise ModelNotAllowed(message, param="model")

    def check_jobs(self, *, of_team: int, of_key: int) -> None:
        """Refuse a job for which there is no place; the counts are of open jobs, the new one included.

        Raises:
            RateLimitExceeded: the team or the key has as many jobs at once as it may.
        """
        for limits, jobs, whose in ((self.key, of_key, "API key"), (self.team, of_team, "team")):
            if limits.max_jobs is not None and jobs > limits.max_jobs:
                message = (
                    f"This {whose} may have {limits.max_jobs} jobs at once, and has as many. Wait until one of them "
                    "has ended."
                )
                raise RateLimitExceeded(message, limit="max_jobs", retry_after_s=_ROOM_AFTER_S)

    def check_queue(self, *, of_team: int, of_key: int) -> None:
        """Refuse a job that would have to wait behind too many; the counts are of queued jobs, without the new one.

        Raises:
            QueueFull: as many of the team or of the key wait as may.
        """
        most = MAX_QUEUED if self.team.max_queued is None else self.team.max_queued
        for limit, queued, whose in ((self.key.max_queued, of_key, "API key"), (most, of_team, "team")):
            if limit is not None and queued >= limit:
                message = (
                    f"{limit} jobs of this {whose} wait already. Try again when some of them have begun."
                )
                raise QueueFull(message, retry_after_s=_ROOM_AFTER_S)

    @property
    def limits_images(self) -> bool:
        """Whether pictures a minute are counted."""
        return self.team.images_per_minute is not None or self.key.images_per_minute is not None

    @property
    def limits_jobs(self) -> bool:
        """Whether jobs at once are counted."""
        return self.team.max_jobs is not None or self.key.max_jobs is not None

    @property
    def limits_queue(self) -> bool:
        """Whether waiting jobs are limited otherwise than for everybody."""
        return self.team.max_queued is not None or self.key.max_queued is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a request took of the rates that hold for it; nothing where none does."""

    rates: tuple[Rate, ...] = ()
    draws: tuple[Draw, ...] = ()


class AccountLimits:
    """Reads limits, and counts requests and pictures a minute."""

    def __init__(self, database: Database, limiter: Limiter) -> None:
        self._database = database
        self._limiter = limiter
        self._looks: dict[tuple[str, str], asyncio.Task[Terms]] = {}

    async def terms(self, team_id: str, api_key_id: str) -> Terms:
        """What holds for a caller now. Calls of the same moment share one look into the database.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """
        caller = (team_id, api_key_id)
        look = self._looks.get(caller)
        if look is None:
            look = asyncio.create_task(self._look(team_id, api_key_id))
            self._looks[caller] = look
            look.add_done_callback(lambda _: self._looks.pop(caller))
        # Shielded, for a caller that goes away must not take the others' look along.
        return await asyncio.shield(look)

    async def _look(self, team_id: str, api_key_id: str) -> Terms:
        async with self._database.reading() as connection:
            team, key, line_id, at = await repository.limits_of(connection, team_id, api_key_id)
        return Terms(
            team_id=team_id,
            api_key_id=api_key_id,
            key_line_id=line_id,
            team=limits_from(team),
            key=limits_from(key),
            at=at,
        )

    async def take(
        self, terms: Terms, *, requests: int = 0, images: int = 0, counted: Taken | None = None
    ) -> Taken:
        """Count requests, or the pictures that they ask for, after what was `counted` already.

        Raises:
            RateLimitExceeded: one of the rates is used up; nothing was counted.
            RateTooSmall: no minute has room for so many pictures; what was `counted` is taken back.
        """
        before = counted or Taken()
        draws = _draws(terms, requests, images)
        hopeless = [draw for draw in draws if draw.amount > draw.per_minute]
        if hopeless:
            await self._give_back(before.draws)
            least = min(hopeless, key=lambda draw: draw.per_minute)
            message = (
                f"{_allowed(least.bucket, least.per_minute)}, and this request asks for {least.amount} at once. Ask "
                f"for {least.per_minute} or fewer with 'n'."
            )
            raise RateTooSmall(message, limit="images_per_minute", param="n")
        levels = await self._limiter.take(draws) if draws else []
        taken = Taken(rates=before.rates + _rates(levels), draws=before.draws + tuple(draws))
        wait_s = max((level.wait_s for level in levels), default=0.0)
        if wait_s > 0:
            tightest = max(levels, key=lambda level: level.wait_s)
            left = {0: "none is", 1: "1 is"}.get(tightest.remaining, f"{tightest.remaining} are")
            message = f"{_allowed(tightest.bucket, tightest.per_minute)}, and {left} left. Try again in {wait_s:.1f} s."
            limit = f"{_subject(tightest.bucket)}_per_minute"
            raise RateLimitExceeded(message, limit=limit, retry_after_s=wait_s, rates=taken.rates)
        return taken

    async def give_back_images(self, taken: Taken) -> None:
        """Take back what was counted for pictures, for a request that will buy none."""
        await self._give_back([draw for draw in taken.draws if _subject(draw.bucket) == "images"])

    async def _give_back(self, draws: Sequence[Draw]) -> None:
        back = [Draw(bucket=draw.bucket, per_minute=draw.per_minute, amount=-draw.amount) for draw in draws]
        if back:
            await self._limiter.take(back)


def limits_from(document: Mapping[str, Json]) -> Limits:
    """Read limits as they are stored: checked when they were set, budgets as they were written."""
    models = document.get("allowed_models")
    return Limits(
        allowed_models=frozenset(str(name) for name in models) if isinstance(models, list) else None,
        requests_per_minute=_count(document.get("requests_per_minute")),
        images_per_minute=_count(document.get("images_per_minute")),
        max_jobs=_count(document.get("max_jobs")),
        max_queued=_count(document.get("max_queued")),
        budget_day_micros=_budget(document.get("budget_day_usd")),
        budget_month_micros=_budget(document.get("budget_month_usd")),
    )


def _count(value: Json) -> int | None:
    return value if isinstance(value, int) else None


def _budget(value: Json) -> int | None:
    # The shortest text that means a float is what was written.
    return None if value is None else micros(Decimal(str(value)))


def _draws(terms: Terms, requests: int, images: int) -> list[Draw]:
    wanted = [
        (f"{whose}:{subject}:{owner_id}", per_minute, amount)
        for whose, owner_id, limits in (
            ("key", terms.key_line_id, terms.key),
            ("team", terms.team_id, terms.team),
        )
        for subject, per_minute, amount in (
            ("requests", limits.requests_per_minute, requests),
            ("images", limits.images_per_minute, images),
        )
    ]
    return [
        Draw(bucket=bucket, per_minute=per_minute, amount=amount)
        for bucket, per_minute, amount in wanted
        if per_minute is not None and amount
    ]


def _rates(levels: Sequence[Level]) -> tuple[Rate, ...]:
    rates = []
    for subject in ("requests", "images"):
        of_subject = [level for level in levels if _subject(level.bucket) == subject]
        if of_subject:
            tightest = min(of_subject, key=lambda level: (level.remaining, level.per_minute))
            rates.append(
                Rate(
                    subject=subject,
                    per_minute=tightest.per_minute,
                    remaining=tightest.remaining,
                    reset_s=tightest.full_in_s,
                )
            )
    return tuple(rates)


def _allowed(bucket: str, per_minute: int) -> str:
    whose, subject = bucket.split(":")[:2]
    owner = "API key" if whose == "key" else "team"
    return f"This {owner} may ask for {per_minute} {subject if per_minute != 1 else subject[:-1]} a minute"


def _subject(bucket: str) -> str:
    return bucket.split(":")[1]
