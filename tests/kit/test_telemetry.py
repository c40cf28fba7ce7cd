"""Logs: their two forms, what they bind, and what never gets into them."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from app.kit.telemetry import REDACTED, Redaction, configure_logging, get_logger

LOG = get_logger("darkroom.test")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Whatever a test configures is undone."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("httpx2", "httpcore2", "arq")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert not captured.out
    return [json.loads(line) for line in captured.err.splitlines()]


def test_an_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    LOG.info("job.succeeded", job_id="job_1", cost_micros=7152)

    (line,) = lines(capsys)

    assert line.pop("at").endswith("Z")
    assert line == {
        "event": "job.succeeded",
        "job_id": "job_1",
        "cost_micros": 7152,
        "level": "info",
        "logger": "darkroom.test",
    }


def test_without_a_terminal_the_form_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(None)
    LOG.info("one")

    assert lines(capsys)[0]["event"] == "one"


def test_the_console_form_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console")
    LOG.info("job.started", upstream="openai")

    written = capsys.readouterr().err
    assert "job.started" in written
    assert "upstream=openai" in written
    assert not written.startswith("{")


def test_ids_bound_once_are_on_every_line_of_the_unit_of_work(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    with structlog.contextvars.bound_contextvars(job_id="job_1"):
        LOG.info("inside")
        logging.getLogger("some.library").warning("it %s", "too")
    LOG.info("outside")

    assert [line.get("job_id") for line in lines(capsys)] == ["job_1", "job_1", None]


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "warning")
    LOG.info("quiet")
    LOG.warning("loud")

    assert [line["event"] for line in lines(capsys)] == ["loud"]


@pytest.mark.parametrize("name", ["httpx2", "httpcore2", "arq"])
def test_chatty_libraries_are_heard_from_warning_up(capsys: pytest.CaptureFixture[str], name: str) -> None:
    configure_logging("json", "debug")
    logging.getLogger(name).info("GET https://shop.example/?sig=abc")
    logging.getLogger(name).warning("something is wrong")

    assert [line["event"] for line in lines(capsys)] == ["something is wrong"]


def test_a_library_is_logged_with_its_facts_and_without_its_colours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("json")
    logging.getLogger("uvicorn.error").info("Started", extra={"color_message": "\x1b[36mStarted", "port": 1})

    (line,) = lines(capsys)

    assert (line["event"], line["port"]) == ("Started", 1)
    assert "color_message" not in line


def test_configuring_twice_does_not_write_twice(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    configure_logging("json")
    LOG.info("once")

    assert len(lines(capsys)) == 1


SECRETS = [
    ("a key of ours", "key dk_0123456789_abcdefghijk", "dk_"),
    ("a bootstrap key", "dk_bootstrap_0f3b9c27d1e84a65", "dk_"),
    ("a vendor's key", "sk-proj-4a65b2c7_d1e8", "sk-"),
    ("a header", "Authorization: Bearer 0f3b9c27d1e84a65", "Bearer"),
    ("a header in lower case", "authorization: bearer 0f3b9c27d1e84a65", "bearer"),
    ("a webhook secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_"),
    ("a signed link", "https://x.example/f?exp=1&sig=0f3b9c27d1e84a65&a=1", "a=1"),
    ("a bucket's link", "https://b.example/f?X-Amz-Signature=0f3b9c27d1e84a65", "b.example"),
    ("a password", "postgresql://darkroom:0f3b9c27d1e84a65@db/x", "darkroom"),
    ("a picture", "data:image/png;base64," + "0f3b9c27d1e84a65" * 13, "data:image/png"),
    (
        "a refused row",
        "broke\nDETAIL:  Failing row contains (1, 0f3b9c27, d1e84a65).\nand so on",
        "and so on",
    ),
    ("a refused value", "invalid input for query argument $1: '0f3b9c27d1e84a65'", "query argument"),
    ("a named value", "the value is 0f3b9c27 d1e84a65", "the value is"),
]


@pytest.mark.parametrize("text, kept", [case[1:] for case in SECRETS], ids=[case[0] for case in SECRETS])
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_secret_is_taken_out_wherever_it_stands(
    capsys: pytest.CaptureFixture[str], log_format: Any, text: str, kept: str
) -> None:
    configure_logging(log_format, secrets=["0f3b9c27 d1e84a65"])
    LOG.info("fact", value=text)
    LOG.info("deep", value={"list": [text, (text,)]}, other=ValueError(text))
    LOG.info(text)
    logging.getLogger("some.library").warning("said %s", text)
    try:
        _ = dict[str, int]()[text]
    except KeyError:
        LOG.exception("broken")

    written = capsys.readouterr().err
    assert written.count(REDACTED) >= 6
    assert kept in written
    for part in ("0f3b9c27", "0123456789_abc", "4a65b2c7", "MfKQ9r8G"):
        assert part not in written


@pytest.mark.parametrize(
    "harmless",
    [
        "job_01jd8w4m3n5p7q9r1s3t5v7w9x",
        "https://api.openai.com/v1/images/generations",
        "task-list and risk-free",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "size=1024x1024 signal=15",
    ],
)
def test_what_is_no_secret_stays(harmless: str) -> None:
    assert Redaction().text(harmless) == harmless


def test_bytes_are_counted_and_never_written() -> None:
    cleaned = Redaction()(None, "info", {"event": "kept", "content": b"\x89PNG picture", "n": 3, "ok": True})

    assert cleaned == {"event": "kept", "content": "[12 bytes]", "n": 3, "ok": True}
