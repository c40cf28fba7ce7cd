"""`darkroom generate`, from the prompt to the saved picture, and every way it can end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.client import Gateway
from app.kit.json import JsonObject
from tests.cli.command import darkroom
from tests.cli.gateway import PICTURE, FakeGateway, error


def test_a_picture_is_saved_and_its_bill_printed(gateway: FakeGateway, folder: Path) -> None:
    gateway.stages = [gateway.job(status="in_progress", unsigned_urls=[]), gateway.job()]

    ended = darkroom("generate", "a lighthouse", "-o", "out.png")

    assert ended.code == 0, ended.err
    assert (folder / "out.png").read_bytes() == PICTURE
    assert [each.name for each in folder.iterdir()] == ["out.png"]
    assert "Saved out.png" in ended.out
    assert "$0.007152 from therouter in" in ended.out
    assert "job_1" in ended.out


def test_the_request_holds_what_was_asked_for_and_nothing_else(gateway: FakeGateway) -> None:
    darkroom("generate", "a lighthouse")
    darkroom(
        *("generate", "a lighthouse", "-o", "out.webp", "--model", "gpt-image-1.5", "--size", "1536x1024"),
        *("--quality", "low", "--background", "transparent", "-n", "3"),
    )

    plain, full = (each for each in gateway.asked if each.method == "POST")
    assert plain.query == {"async": "true"}
    assert plain.body == {"model": "gpt-image-2", "prompt": "a lighthouse", "n": 1, "output_format": "png"}
    assert full.body == {
        "model": "gpt-image-1.5",
        "prompt": "a lighthouse",
        "n": 3,
        "size": "1536x1024",
        "quality": "low",
        "output_format": "webp",
        "background": "transparent",
    }


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        (["-o", "a.jpg"], "jpeg"),
        (["-o", "a.JPEG"], "jpeg"),
        (["-o", "a.picture"], None),
        (["-o", "a.png", "--format", "webp"], "webp"),
    ],
)
def test_the_format_follows_the_name_unless_it_is_given(
    gateway: FakeGateway, arguments: list[str], wanted: str | None
) -> None:
    darkroom("generate", "a lighthouse", *arguments)

    assert gateway.asked[0].body.get("output_format") == wanted


def test_several_pictures_are_numbered(gateway: FakeGateway, folder: Path) -> None:
    gateway.pictures = 3

    ended = darkroom("generate", "a lighthouse", "-o", "out.png", "-n", "3")

    assert sorted(each.name for each in folder.iterdir()) == ["out-1.png", "out-2.png", "out-3.png"]
    assert "Saved out-1.png, out-2.png, out-3.png" in ended.out


def test_scripts_get_the_job_and_the_files_as_json(gateway: FakeGateway) -> None:
    ended = darkroom("generate", "a lighthouse", "--json")

    assert ended.json == {"job": gateway.job(), "files": ["out.png"]}


def test_the_key_goes_to_the_gateway_and_not_to_a_signed_link(gateway: FakeGateway) -> None:
    darkroom("generate", "a lighthouse")

    for asked in gateway.asked:
        assert ("authorization" in asked.headers) is not asked.path.startswith("/v1/files/")


def test_a_public_url_that_this_machine_cannot_reach_does_not_matter(
    gateway: FakeGateway, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DARKROOM_PUBLIC_URL")
    gateway.public_url = "https://images.invalid/darkroom"

    ended = darkroom("generate", "a lighthouse", "--base-url", f"{gateway.url}/v1")

    assert ended.code == 0, ended.err
    assert (folder / "out.png").read_bytes() == PICTURE


def test_a_submit_that_was_cut_off_is_repeated_as_the_same_request(gateway: FakeGateway) -> None:
    gateway.broken_submits = 2

    ended = darkroom("generate", "a lighthouse")

    assert ended.code == 0, ended.err
    submits = [each for each in gateway.asked if each.method == "POST"]
    assert len(submits) == 3
    assert len({each.headers["idempotency-key"] for each in submits}) == 1


def test_two_commands_are_two_requests(gateway: FakeGateway) -> None:
    darkroom("generate", "a lighthouse")
    darkroom("generate", "a lighthouse")

    assert len({each.headers["idempotency-key"] for each in gateway.asked if each.method == "POST"}) == 2


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"status": "failed", "error": {"message": "No route could.", "code": "all_upstreams_failed"}},
            "The job job_1 failed: No route could. (all_upstreams_failed)",
        ),
        ({"status": "cancelled"}, "The job job_1 was cancelled."),
        ({"status": "expired"}, "The job job_1 expired."),
    ],
)
def test_a_job_without_pictures_ends_with_1(
    gateway: FakeGateway, folder: Path, changes: dict[str, object], said: str
) -> None:
    gateway.stages = [gateway.job(unsigned_urls=[], **changes)]

    ended = darkroom("generate", "a lighthouse")

    assert ended.code == 1
    assert said in ended.err
    assert "openai: busy" in ended.err
    assert not list(folder.iterdir())


def test_a_failed_job_is_json_too(gateway: FakeGateway) -> None:
    gateway.stages = [gateway.job(status="failed", unsigned_urls=[])]

    ended = darkroom("generate", "a lighthouse", "--json")

    assert ended.code == 1
    assert (ended.json["job"]["status"], ended.json["files"]) == ("failed", [])


@pytest.mark.parametrize(
    "refusal, code, said",
    [
        ((400, error("'9x9' is no size.", "invalid_value")), 2, "'9x9' is no size. (invalid_value)"),
        ((401, error("Incorrect API key.", "invalid_api_key")), 4, "--api-key"),
        ((403, error("Not this model.", "model_not_allowed")), 4, "model_not_allowed"),
        ((404, error("No such model.", "model_not_found")), 2, "No such model."),
        ((404, error("No such job.", "job_not_found")), 1, "No such job."),
        ((429, error("The budget is spent.", "insufficient_quota")), 1, "The budget is spent."),
        ((502, "<html>Bad gateway</html>"), 3, "HTTP 502"),
        ((200, "<html>Welcome</html>"), 3, "is not Darkroom"),
    ],
)
def test_a_refusal_is_a_sentence_and_an_exit_code(
    gateway: FakeGateway, refusal: tuple[int, dict[str, object] | str], code: int, said: str
) -> None:
    gateway.refusal = refusal

    ended = darkroom("generate", "a lighthouse")

    assert ended.code == code
    assert said in ended.err
    assert not ended.out


def test_no_gateway_is_a_sentence_and_3() -> None:
    ended = darkroom("generate", "a lighthouse", "--base-url", "http://127.0.0.1:9", "--api-key", "some-key")

    assert ended.code == 3
    assert ended.err.startswith("No gateway answers at http://127.0.0.1:9.")


def test_no_key_is_a_sentence_and_4() -> None:
    ended = darkroom("generate", "a lighthouse")

    assert ended.code == 4
    assert "DARKROOM_API_KEY" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate"],
        ["generate", "a lighthouse", "-n", "0"],
        ["generate", "a lighthouse", "-o", "missing/out.png"],
        ["generate", "a lighthouse", "-o", "."],
        ["generate", "a lighthouse", "--base-url", "localhost:8080", "--api-key", "some-key"],
        ["generate", "a lighthouse", "--nonsense"],
        ["nonsense"],
    ],
)
def test_a_wrong_call_ends_with_2_and_buys_nothing(gateway: FakeGateway, arguments: list[str]) -> None:
    ended = darkroom(*arguments)

    assert ended.code == 2
    assert ended.err
    assert not gateway.asked


def test_ctrl_c_tells_how_to_collect_the_job_later(gateway: FakeGateway, folder: Path) -> None:
    gateway.stages = [gateway.job(status="in_progress", unsigned_urls=[])]
    process = subprocess.Popen(
        [sys.executable, "-c", "from app.cli.main import main; main()", "generate", "a lighthouse"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert gateway.asked_for_job.wait(30)

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "The job job_1 goes on without you." in err
    assert "darkroom jobs watch job_1 -o out.png" in err
    assert "Traceback" not in err
    assert not out
    assert not list(folder.iterdir())


def test_ctrl_c_while_a_request_is_handed_in_says_where_its_job_would_be(
    monkeypatch: pytest.MonkeyPatch, gateway: FakeGateway
) -> None:
    def interrupted(_gateway: Gateway, _request: JsonObject) -> JsonObject:
        raise KeyboardInterrupt

    monkeypatch.setattr(Gateway, "submit", interrupted)

    ended = darkroom("generate", "a lighthouse")

    assert ended.code == 130
    assert "darkroom jobs list --limit 1" in ended.err
