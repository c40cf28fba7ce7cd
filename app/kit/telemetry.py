"""Structured logs: event names with key-value pairs, ids bound once per unit of work, secrets taken out at the end.

Lines go to standard error, for people on a terminal and as one JSON object each everywhere else.
"""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Logger: TypeAlias = structlog.stdlib.BoundLogger
LogFormat: TypeAlias = Literal["console", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

REDACTED: Final = "[redacted]"
"""What stands in a log where a secret was."""

# They tell of every request, and what they say is either said by us with ids or holds URLs.
_NOISY: Final = ("aiosqlite", "alembic", "arq", "asyncio", "hpack", "httpcore2", "httpx2")

_PATTERNS: Final = (
    (re.compile(r"\b(dk_|sk-|whsec_)[A-Za-z0-9+/=_-]{4,}"), rf"\1{REDACTED}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{4,}"), rf"\1 {REDACTED}"),
    (
        re.compile(r"(?i)\b((?:x-amz-)?(?:sig|signature|credential|security-token)=)[^&\s\"'<>]+"),
        rf"\1{REDACTED}",
    ),
    # The password of a URL such as postgresql://user:password@host.
    (re.compile(r"(://[^/\s:@]*:)[^/\s@]+@"), rf"\1{REDACTED}@"),
    # What Postgres says of a row that breaks a rule: the whole row. And its driver, of a value that it cannot send.
    (re.compile(r"(DETAIL: +|invalid input for query argument )[^\n]+"), rf"\1{REDACTED}"),
    # Longer than any id or digest: a picture.
    (re.compile(r"[A-Za-z0-9+/_-]{200,}={0,2}"), REDACTED),
)


def configure_logging(
    log_format: LogFormat | None, level: LogLevel = "info", *, secrets: Sequence[str] = ()
) -> None:
    """Send this process's logs, those of libraries included, to standard error. May be called again.

    Args:
        log_format: None chooses `console` where standard error is a terminal, else `json`.
        level: the least severe event that is logged.
        secrets: values that no line may hold, whatever they look like; what the patterns know needs no naming.
    """
    chosen = log_format or ("console" if sys.stderr.isatty() else "json")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
        # Before redaction, because the text of an exception may hold a secret.
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_colours,
                Redaction(secrets),
                *_renderers(chosen),
            ],
        )
    )
    root = logging.getLogger()
    for earlier in [
        each for each in root.handlers if isinstance(each.formatter, structlog.stdlib.ProcessorFormatter)
    ]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str = "darkroom") -> Logger:
    """Return a logger; its first argument is the event's name, a constant, and everything else a key-value pair.

    It may be made when a module is imported, before logging is configured.
    """
    return structlog.stdlib.get_logger(name)


class Redaction:
    """The second net: takes out what looks like a secret. The first is that no secret is ever handed to a logger."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        """`secrets` are taken out word by word; what is too short to be one is left alone."""
        longest_first = sorted({secret for secret in secrets if len(secret) >= 8}, key=len, reverse=True)
        self._named = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Clean one event's values, however deep; the names of its facts are constants."""
        return {key: self._clean(value) for key, value in event.items()}

    def text(self, text: str) -> str:
        """Clean one text."""
        if self._named is not None:
            text = self._named.sub(REDACTED, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def _clean(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case None | bool() | int() | float():
                return value
            case Mapping():
                return {key: self._clean(item) for key, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._clean(item) for item in value]
            case bytes() | bytearray() | memoryview():
                return f"[{len(value)} bytes]"
            case _:
                # Whatever it is, the renderer would write its repr, so that is what has to be clean.
                return self.text(repr(value))


def _without_colours(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Drop uvicorn's second copy of its message, made for its own terminal."""
    event.pop("color_message", None)
    return event


def _renderers(log_format: LogFormat) -> tuple[Processor, ...]:
    match log_format:
        case "console":
            renderer = structlog.dev.ConsoleRenderer(
                timestamp_key="at",
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,
            )
            return (renderer,)
        case "json":
            return (structlog.processors.JSONRenderer(ensure_ascii=False),)
