"""The matrix of vendors and faults: what each comes to, how often the vendor is asked, and what is bought."""

import logging
import traceback
from pathlib import Path
from typing import Final

import pytest

from app.domain.failures import FailureKind, UpstreamFailure
from tests.conformance.bench import a_bench
from tests.conformance.test_pictures import PROMPT, REQUEST, every_speech
from tests.conformance.vendors import FAULTS, KEY, SPEECHES, Fault, Speech

MATRIX: Final = [
    pytest.param(speech, fault, id=f"{speech.name}-{fault.step}")
    for speech in SPEECHES
    for fault in FAULTS
    if fault.at is None or speech.vendor in fault.at
]


def everything_told(
    failure: UpstreamFailure, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> str:
    """All that somebody could read of a failed call: messages, causes, logs, output."""
    told = capsys.readouterr()
    return "".join([*traceback.format_exception(failure), caplog.text, told.out, told.err])


@pytest.mark.parametrize("speech,fault", MATRIX)
async def test_a_fault_comes_to_its_kind_is_asked_once_and_tells_no_secret(
    tmp_path: Path,
    speech: Speech,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    async with speech.simulator() as vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        vendor.script(fault.step)
        with pytest.raises(UpstreamFailure) as caught:
            await bench.buy(REQUEST, timeout_s=fault.timeout_s)
        ledger = vendor.ledger
        assert (ledger.posts, ledger.pictures) == (fault.calls, fault.bought)

    assert caught.value.kind is fault.kind
    assert bench.left_behind() == []
    told = everything_told(caught.value, caplog, capsys)
    assert KEY not in told
    assert PROMPT not in told


@every_speech
async def test_a_vendor_that_is_not_there_is_down_and_was_sent_nothing(
    tmp_path: Path, speech: Speech
) -> None:
    async with speech.simulator() as vendor:
        pass
    async with a_bench(speech, vendor.base_url, tmp_path) as bench:
        with pytest.raises(UpstreamFailure) as caught:
            await bench.buy(REQUEST)

    assert caught.value.kind is FailureKind.DOWN
    assert bench.sent == 0
    assert vendor.ledger.posts == 0


@every_speech
async def test_a_busy_vendor_says_when_to_come_back(tmp_path: Path, speech: Speech) -> None:
    async with speech.simulator() as vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        vendor.script("429:7")
        with pytest.raises(UpstreamFailure) as caught:
            await bench.buy(REQUEST)

    assert caught.value.retry_after_s == 7.0


def test_the_matrix_reaches_every_kind_of_failure_at_every_vendor() -> None:
    for speech in SPEECHES:
        kinds = {fault.kind for fault in FAULTS if fault.at is None or speech.vendor in fault.at}
        assert kinds == set(FailureKind)
