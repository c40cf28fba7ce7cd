"""What `darkroom doctor` looks at. Each check asks one thing a gateway depends on, for free, and says what to fix."""

import asyncio
import shutil
import stat
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError
from sqlalchemy import text

from app.accounts.service import Accounts
from app.assets.errors import StorageUnavailable
from app.assets.storage import storage_from_url
from app.catalog.embedded import SANDBOX
from app.catalog.entries import Upstream
from app.cli.catalog import CatalogMistakes, CheckedCatalog, check_catalog
from app.cli.database import explained
from app.cli.errors import CommandFailed
from app.db.engine import Database
from app.db.migrate import current_revision, is_known_revision, newest_revision
from app.jobs.integrity import CHECKS, check_integrity
from app.kit.http import EgressDenied, GuardedClient, NoAnswer, Timeouts
from app.kit.sealing import Sealer
from app.settings import Settings
from app.webhooks.vault import Vault

_CLOCK_WARN_S: Final = 1.0
# Leases are counted on the database's clock and links expire on ours; beyond this they contradict each other.
_CLOCK_FAIL_S: Final = 10.0
_ASK_S: Final = 10.0
_WHOLE_TABLE_S: Final = 600.0
_REPORT_IT: Final = (
    "This is a bug, or somebody's hand in the tables. Keep a dump, and report it with these ids."
)


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    OFF = "off"
    """Not in use, on purpose or for want of a variable."""
    WARN = "warn"
    """Works, and should be looked at."""
    FAIL = "fail"
    """Does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome."""

    check: str
    verdict: Verdict
    detail: str
    fix: str | None = None
    """What to do; None when nothing needs doing."""


async def examine(settings: Settings, *, with_promises: bool = False) -> list[Finding]:
    """Make every check, those that wait for others at the same time, and return the findings in a fixed order."""
    checked, catalog = _catalog(settings)
    found = [*check_settings(settings), catalog]
    asked: list[Awaitable[list[Finding]]] = [
        check_database(settings),
        check_redis(settings),
        check_storage(settings),
    ]
    if checked is not None:
        asked.append(check_upstreams(settings, checked))
    if with_promises:
        asked.append(check_promises(settings))
    for findings in await asyncio.gather(*asked):
        found += findings
    return found


def unusable_settings(mistakes: Sequence[str]) -> list[Finding]:
    """The findings when there are no settings to check anything with."""
    fix = "Nothing else was checked; correct this, and run `darkroom doctor` again."
    return [Finding("settings", Verdict.FAIL, mistake, fix) for mistake in mistakes]


def check_settings(settings: Settings) -> list[Finding]:
    """Look for misspelled names, a public URL nobody can reach, and secrets that others can read."""
    shape = "embedded default" if settings.is_embedded else "production"
    found = [Finding("settings", Verdict.OK, f"{shape}, reached at {settings.public_url}")]
    for name, meant in settings.misspelled_names().items():
        found.append(Finding("settings", Verdict.WARN, f"{name} is no setting", f"Did you mean {meant}?"))
    if not settings.is_embedded and urlsplit(settings.public_url).hostname in {
        "127.0.0.1",
        "localhost",
        "::1",
    }:
        found.append(
            Finding(
                "settings",
                Verdict.WARN,
                f"links handed out point to {settings.public_url}, which only this machine reaches",
                "Set DARKROOM_PUBLIC_URL to the address that clients use.",
            )
        )
    if settings.is_embedded and settings.secrets_file.exists():
        mode = stat.S_IMODE(settings.secrets_file.stat().st_mode)
        if mode & 0o077:
            found.append(
                Finding(
                    "settings",
                    Verdict.WARN,
                    f"{settings.secrets_file} can be read by others (mode {mode:04o})",
                    f"Run: chmod 600 {settings.secrets_file}",
                )
            )
    return found


async def check_database(settings: Settings) -> list[Finding]:
    """Ask whether the database answers, has the schema of this release, and agrees about the time."""
    if settings.is_embedded and not _sqlite_file(settings).exists():
        return [
            Finding(
                "database", Verdict.OFF, "not made yet", "`darkroom serve` makes it when it first starts."
            )
        ]
    database = Database(settings.database_url, pool_size=1)
    try:
        with explained():
            async with database.reading() as connection:
                revision, newest = await current_revision(connection), newest_revision()
            found = [_schema(revision, newest)]
            if settings.is_embedded:
                found.append(Finding("clock", Verdict.OK, "the database has this machine's"))
            else:
                async with database.reading() as connection:
                    theirs: datetime = (
                        await connection.execute(text("SELECT clock_timestamp()"))
                    ).scalar_one()
                found.append(_clock((datetime.now(UTC) - theirs).total_seconds()))
            if revision == newest and len(settings.secret_keys) > 1:
                found.append(_left_behind(await Accounts(database, settings.secret_keys).count_left_behind()))
            if revision == newest and settings.secret_keys:
                keys = await Accounts(database, settings.secret_keys).count_lost()
                found += _lost(keys, await Vault(database, Sealer(settings.secret_keys)).count_lost())
            return found
    except CommandFailed as exc:
        return [_refused("database", exc)]
    finally:
        await database.close()


async def check_promises(settings: Settings) -> list[Finding]:
    """Look through every job and attempt for a broken promise. Reads whole tables: minutes with millions of rows."""
    nothing_yet = Finding("integrity", Verdict.OFF, "there are no tables of this release to look through")
    if settings.is_embedded and not _sqlite_file(settings).exists():
        return [nothing_yet]
    database = Database(settings.database_url, pool_size=1, statement_timeout_s=_WHOLE_TABLE_S)
    try:
        with explained():
            async with database.reading() as connection:
                revision = await current_revision(connection)
            if revision != newest_revision():
                return [nothing_yet]
            async with database.reading() as connection:
                violations = await check_integrity(connection)
    except CommandFailed as exc:
        return [_refused("integrity", exc)]
    finally:
        await database.close()
    if not violations:
        return [
            Finding("integrity", Verdict.OK, f"all {len(CHECKS)} promises about jobs and their money hold")
        ]
    return [
        Finding(
            "integrity", Verdict.FAIL, f"{found.sentence.rstrip('.')}: {', '.join(found.ids)}", _REPORT_IT
        )
        for found in violations
    ]


async def check_redis(settings: Settings) -> list[Finding]:
    """Ask whether Redis answers."""
    if settings.redis_url is None:
        return [Finding("redis", Verdict.OFF, "not in use; `darkroom serve` runs the workers itself")]
    client = Redis.from_url(settings.redis_url, socket_timeout=_ASK_S, socket_connect_timeout=_ASK_S)
    try:
        await client.ping()
    except AuthenticationError:
        return [Finding("redis", Verdict.FAIL, "it refuses the password", "Check DARKROOM_REDIS_URL.")]
    except (RedisError, OSError, TimeoutError) as exc:
        detail = f"it does not answer ({type(exc).__name__})"
        return [Finding("redis", Verdict.FAIL, detail, "Is it running? Check DARKROOM_REDIS_URL.")]
    finally:
        await client.aclose()
    return [Finding("redis", Verdict.OK, "answers")]


async def check_storage(settings: Settings) -> list[Finding]:
    """Write a probe where pictures are kept, and tell how much room there is."""
    parts = urlsplit(settings.storage_url)
    is_folder = parts.scheme == "file"
    folder = Path(unquote(parts.path))
    if is_folder and settings.is_embedded and not settings.data_dir.exists():
        return [
            Finding("storage", Verdict.OFF, "not made yet", "`darkroom serve` makes it when it first starts.")
        ]
    try:
        storage = storage_from_url(settings.storage_url, settings.data_dir, settings.aws_variables())
        await storage.check()
    except StorageUnavailable as exc:
        fix = (
            "Free some space, or set DARKROOM_STORAGE_URL to another place."
            if is_folder
            else "Check the bucket's name, the AWS_* variables, and the way to the endpoint."
        )
        return [Finding("storage", Verdict.FAIL, exc.message, fix)]
    except OSError as exc:
        detail = f"{folder} cannot be written to ({exc.strerror})"
        fix = "Let this user write there, or set DARKROOM_STORAGE_URL to another place."
        return [Finding("storage", Verdict.FAIL, detail, fix)]
    except ValueError as exc:
        return [Finding("storage", Verdict.FAIL, str(exc), "Check DARKROOM_STORAGE_URL.")]
    if not is_folder:
        return [Finding("storage", Verdict.OK, f"s3://{parts.netloc} is writable")]
    free_gib = shutil.disk_usage(folder).free / 1024**3
    return [Finding("storage", Verdict.OK, f"{folder} is writable, {free_gib:.1f} GiB free")]


async def check_upstreams(settings: Settings, checked: CheckedCatalog) -> list[Finding]:
    """Ask each upstream that is on for its list of models, which costs nothing and proves address and key."""
    client = GuardedClient(allow_networks=settings.allow_networks)
    try:
        return list(
            await asyncio.gather(
                *(_upstream(client, checked, each) for each in checked.catalog.upstreams.values())
            )
        )
    finally:
        await client.aclose()


async def _upstream(client: GuardedClient, checked: CheckedCatalog, upstream: Upstream) -> Finding:
    name = f"upstream {upstream.name}"
    if upstream.adapter == SANDBOX:
        return Finding(name, Verdict.OK, "draws inside the process")
    missing = checked.missing.get(upstream.name)
    if missing is not None:
        return Finding(name, Verdict.OFF, f"{missing} is not set", f"Set {missing} to turn it on.")
    key = checked.keys.key(upstream)
    headers = {"accept": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    url = f"{upstream.base_url}/models"
    address = urlsplit(upstream.base_url).hostname
    try:
        async with (
            asyncio.timeout(2 * _ASK_S),
            client.exchange(
                "GET",
                url,
                headers=headers,
                timeouts=Timeouts(connect_s=_ASK_S, read_s=_ASK_S),
                trusted_url=upstream.base_url,
            ) as answer,
        ):
            status = answer.status
    except (NoAnswer, EgressDenied, TimeoutError) as exc:
        detail = f"{address} does not answer ({str(exc) or 'too slow'})"
        return Finding(
            name, Verdict.FAIL, detail, "Check its base_url in the catalog, and the way out of this network."
        )
    match status:
        case 200:
            return Finding(name, Verdict.OK, f"{address} answers and knows the key")
        case 401 | 403:
            variable = upstream.api_key_env or "its key"
            return Finding(
                name, Verdict.FAIL, f"{address} refuses the key (HTTP {status})", f"Check {variable}."
            )
        case _:
            detail = f"{address} answers, but has no list of models to prove the key by (HTTP {status})"
            return Finding(name, Verdict.WARN if status >= 500 else Verdict.OK, detail)


def _catalog(settings: Settings) -> tuple[CheckedCatalog | None, Finding]:
    try:
        checked = check_catalog(settings.config, settings)
    except CatalogMistakes as exc:
        return None, Finding("catalog", Verdict.FAIL, "; ".join(exc.mistakes), "Run `darkroom config check`.")
    models, upstreams = len(checked.catalog.models), len(checked.catalog.upstreams)
    count = (
        f"{models} model{'' if models == 1 else 's'} at {upstreams} upstream{'' if upstreams == 1 else 's'}"
    )
    if not checked.unserved:
        return checked, Finding("catalog", Verdict.OK, count)
    wanted = sorted(set(checked.missing.values()))
    return checked, Finding(
        "catalog",
        Verdict.WARN,
        f"{count}; nothing can serve {', '.join(checked.unserved)}",
        f"Set one of {', '.join(wanted)}." if wanted else None,
    )


def _schema(revision: str | None, newest: str) -> Finding:
    if revision == newest:
        return Finding("database", Verdict.OK, f"answers, at revision {revision}")
    if revision is not None and not is_known_revision(revision):
        detail = f"answers, at revision {revision} of a newer Darkroom"
        return Finding(
            "database", Verdict.WARN, detail, "This release goes on working; start the newer one soon."
        )
    stands = "it has no tables yet" if revision is None else f"it is at revision {revision}, not {newest}"
    return Finding("database", Verdict.FAIL, stands, "Run `darkroom migrate`.")


def _refused(check: str, exc: CommandFailed) -> Finding:
    """What `explained` says, told apart into what is wrong and what to do."""
    said, _, fix = str(exc).partition(". ")
    return Finding(check, Verdict.FAIL, said.rstrip("."), fix or None)


def _left_behind(keys: int) -> Finding:
    if not keys:
        return Finding("secrets", Verdict.OK, "every API key is recognised by the newest secret")
    return Finding(
        "secrets",
        Verdict.WARN,
        f"{keys} API keys are recognised by an older secret of DARKROOM_SECRET_KEY alone",
        "Keep it. Run `darkroom secrets rotate` once every process has the newest; keys follow when they are used.",
    )


def _lost(keys: int, secrets: int) -> list[Finding]:
    if not keys and not secrets:
        return []
    return [
        Finding(
            "secrets",
            Verdict.FAIL,
            f"DARKROOM_SECRET_KEY no longer holds the secret of {keys} API keys, which are refused, and of {secrets} "
            "webhook secrets, which sign nothing",
            "Add the older one back, behind the new one and a comma. If it is gone for good: revoke those keys, and "
            "rotate the teams' webhook secrets with an overlap of 0 s.",
        )
    ]


def _clock(difference_s: float) -> Finding:
    detail = f"{abs(difference_s):.1f} s {'ahead of' if difference_s > 0 else 'behind'} the database"
    if abs(difference_s) <= _CLOCK_WARN_S:
        return Finding("clock", Verdict.OK, detail)
    verdict = Verdict.WARN if abs(difference_s) <= _CLOCK_FAIL_S else Verdict.FAIL
    return Finding("clock", verdict, detail, "Let both machines follow a time server.")


def _sqlite_file(settings: Settings) -> Path:
    return Path(settings.database_url.removeprefix("sqlite:///"))
