"""docs/deployment.md says what the files and the settings say."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from app.settings import Settings
from tests.containers import compose

PAGE = (compose.ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SHELL = [text for language, text in FENCES if language == "sh"]


def test_the_recipe_for_secrets_makes_all_that_compose_asks_for(tmp_path: Path) -> None:
    [recipe] = [text for text in SHELL if "> .env" in text]
    subprocess.run(["/bin/sh", "-ec", recipe], cwd=tmp_path, check=True)
    lines = (tmp_path / ".env").read_text(encoding="ascii").splitlines()
    made = dict(line.split("=", 1) for line in lines)
    assert set(made) == set(compose.mandatory())
    assert len(set(made.values())) == len(made)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    compose.document(made)


def test_every_variable_it_names_is_a_setting() -> None:
    known = {f"DARKROOM_{field.upper()}" for field in Settings.model_fields}
    assert set(re.findall(r"DARKROOM_\w+", PAGE)) <= known


def test_every_service_it_names_exists() -> None:
    services = compose.services()
    named = re.findall(r"docker compose (?:exec|run)(?: -\S+)* (\w+)", PAGE.replace("\\\n", ""))
    named += re.findall(r"--scale (\w+)=", PAGE)
    assert named
    assert set(named) <= set(services)


@pytest.mark.parametrize("text", SHELL)
def test_every_command_is_a_shells(text: str) -> None:
    done = subprocess.run(["/bin/sh", "-n", "-c", text], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_the_proxies_outlast_a_held_call_and_let_the_largest_body_through() -> None:
    timeouts = [int(found) for found in re.findall(r"(?:read|send|header)_timeout (\d+)s", PAGE)]
    assert len(timeouts) == 3
    assert min(timeouts) > Settings.model_fields["sync_timeout_s"].default
    largest = Settings.model_fields["max_body_bytes"].default
    [caddy] = re.findall(r"max_size (\d+)MB", PAGE)
    [nginx] = re.findall(r"client_max_body_size (\d+)m;", PAGE)
    assert int(caddy) * 1000**2 >= largest
    assert int(nginx) * 1024**2 >= largest


def test_every_grace_it_names_is_that_of_compose() -> None:
    grace = compose.seconds(compose.services()["worker"]["stop_grace_period"])
    assert {int(found) for found in re.findall(r"--(?:stop-timeout|time) (\d+)", PAGE)} == {grace}


def test_the_lifecycle_rule_ends_abandoned_uploads_and_no_picture() -> None:
    [rules] = [json.loads(text)["Rules"] for language, text in FENCES if language == "json"]
    assert [set(rule) for rule in rules] == [{"ID", "Status", "Filter", "AbortIncompleteMultipartUpload"}]
