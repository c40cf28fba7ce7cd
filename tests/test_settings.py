"""Settings: their defaults, their secrets, and every way to get one wrong."""

import json
import os
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path

import pytest

from app.kit.secrets import SecretsUnreadable, is_guessable, keep_secrets, read_secrets
from app.settings import ClientSettings, Settings, SettingsInvalid

API_KEY = "an-api-key-0f3b9c27d1e84a65b2c7e9"
ADMIN_KEY = "an-admin-key-7c1de0459ab3f26688d1"
SECRET_KEY = "a-signing-secret-4be1c09f7d2a83561"
PRODUCTION = {
    "DARKROOM_DATABASE_URL": "postgresql://darkroom:hunter2hunter2@db/darkroom",
    "DARKROOM_REDIS_URL": "redis://:hunter3hunter3@redis:6379/0",
    "DARKROOM_API_KEY": API_KEY,
    "DARKROOM_ADMIN_KEY": ADMIN_KEY,
    "DARKROOM_SECRET_KEY": SECRET_KEY,
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An empty folder and an environment without settings."""
    for name in [name for name in os.environ if name.startswith(("DARKROOM_", "AWS_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def set_all(environment: pytest.MonkeyPatch, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        environment.setenv(name, value)


def mistakes() -> tuple[str, ...]:
    with pytest.raises(SettingsInvalid) as caught:
        Settings.load()
    return caught.value.mistakes


def test_without_any_variable_everything_lives_in_the_data_folder(tmp_path: Path) -> None:
    settings = Settings.load()

    assert settings.is_embedded
    assert settings.has_own_workers
    assert settings.database_url == f"sqlite:///{tmp_path}/data/darkroom.db"
    assert settings.storage_url == f"file://{tmp_path}/data/files"
    assert settings.public_url == "http://127.0.0.1:8080"
    assert settings.config == Path("config/gateway.yaml")
    assert settings.allow_networks == ()
    assert settings.trusted_proxies == ()


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = Settings.load()

    assert (settings.sync_timeout_s, settings.result_ttl_s, settings.lease_s) == (600, 604_800, 30)
    assert (settings.max_body_bytes, settings.max_image_bytes) == (200_000_000, 50_000_000)
    assert (settings.max_images, settings.max_pixels, settings.max_prompt_chars) == (16, 100_000_000, 32_000)
    assert (settings.admin_listen, settings.metrics_public, settings.otlp_endpoint) == (None, False, None)
    assert (settings.log_format, settings.log_level) == (None, "info")
    assert settings.worker_address is None


def test_generated_secrets_are_strong_private_and_the_same_after_a_restart() -> None:
    first, second = Settings.load(), Settings.load()

    assert first.secret_values() == second.secret_values()
    assert len(set(first.secret_values())) == 3
    assert all(len(secret) >= 32 and not is_guessable(secret) for secret in first.secret_values())
    assert stat.S_IMODE(first.secrets_file.stat().st_mode) == 0o600
    assert [each.name for each in first.data_dir.iterdir()] == ["secrets.json"]


def test_processes_that_start_together_share_one_set_of_secrets(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secrets.json"

    with ThreadPoolExecutor(8) as threads:
        kept = list(threads.map(lambda _: keep_secrets(path), range(8)))

    assert len({secrets.api_key for secrets in kept}) == 1


def test_a_command_that_only_looks_leaves_no_secrets_behind(tmp_path: Path) -> None:
    settings = Settings.load(make_secrets=False)

    assert not settings.api_key.get_secret_value()
    assert not (tmp_path / "data").exists()


def test_a_key_set_by_hand_wins_over_the_generated_one(environment: pytest.MonkeyPatch) -> None:
    generated = Settings.load()
    environment.setenv("DARKROOM_API_KEY", API_KEY)

    settings = Settings.load()

    assert settings.api_key.get_secret_value() == API_KEY
    assert settings.admin_key == generated.admin_key


@pytest.mark.parametrize("content", ["", "[]", '{"api_key": "x"}', '{"api_key": 1}'])
def test_a_damaged_file_of_secrets_is_told_and_left_alone(tmp_path: Path, content: str) -> None:
    file = tmp_path / "data" / "secrets.json"
    file.parent.mkdir()
    file.write_text(content)

    assert "Restore it from a backup" in mistakes()[0]
    assert file.read_text() == content


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")

    assert "DARKROOM_DATA_DIR" in mistakes()[0]


def test_secrets_that_are_not_there_read_as_none(tmp_path: Path) -> None:
    assert read_secrets(tmp_path / "none.json") is None
    (tmp_path / "folder").mkdir()
    with pytest.raises(SecretsUnreadable):
        read_secrets(tmp_path / "folder")


def test_production_takes_its_secrets_from_the_operator_and_writes_nothing(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_all(environment, PRODUCTION)

    settings = Settings.load()

    assert not settings.is_embedded
    assert settings.secret_keys == (SECRET_KEY.encode(),)
    assert not (tmp_path / "data").exists()


def test_no_secret_is_in_the_repr(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, {**PRODUCTION, "OPENAI_API_KEY": "sk-very-secret"})

    shown = f"{Settings.load()!r} {Settings.load()} {ClientSettings.load()!r}"

    for secret in (API_KEY, ADMIN_KEY, SECRET_KEY, "hunter2", "hunter3", "sk-very-secret"):
        assert secret not in shown


def test_a_new_secret_signs_while_the_old_one_still_counts(environment: pytest.MonkeyPatch) -> None:
    newer = "a-newer-signing-secret-91f0d7c2b8e4"
    set_all(environment, {**PRODUCTION, "DARKROOM_SECRET_KEY": f"{newer}, {SECRET_KEY}"})

    assert Settings.load().secret_keys == (newer.encode(), SECRET_KEY.encode())


def test_postgres_without_redis_runs_its_workers_in_serve(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, {**PRODUCTION, "DARKROOM_REDIS_URL": ""})

    settings = Settings.load()

    assert settings.has_own_workers
    assert not settings.is_embedded


@pytest.mark.parametrize("written", ["postgres://u@h/d", "postgresql+asyncpg://u@h/d", "postgresql://u@h/d"])
def test_every_spelling_of_a_postgres_address_is_understood(
    environment: pytest.MonkeyPatch, written: str
) -> None:
    set_all(environment, {**PRODUCTION, "DARKROOM_DATABASE_URL": written})

    assert Settings.load().database_url == "postgresql://u@h/d"


def test_a_relative_sqlite_file_is_found_from_any_folder(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("DARKROOM_DATABASE_URL", "sqlite:///own/jobs.db")

    assert Settings.load().database_url == f"sqlite:///{tmp_path}/own/jobs.db"


@pytest.mark.parametrize(
    "host, url",
    [
        ("0.0.0.0", "http://127.0.0.1:9000"),
        ("::", "http://[::1]:9000"),
        ("::1", "http://[::1]:9000"),
        ("gateway.example", "http://gateway.example:9000"),
    ],
)
def test_the_public_url_follows_the_listen_address(
    environment: pytest.MonkeyPatch, host: str, url: str
) -> None:
    set_all(environment, {"DARKROOM_HOST": host, "DARKROOM_PORT": "9000"})

    assert Settings.load().public_url == url
    assert ClientSettings.load().public_url == url


def test_values_are_read_into_their_types(environment: pytest.MonkeyPatch) -> None:
    set_all(
        environment,
        {
            "DARKROOM_PUBLIC_URL": "https://images.example/darkroom/",
            "DARKROOM_ALLOW_NETWORKS": "10.0.0.0/8, fd00::/8,192.168.1.7",
            "DARKROOM_TRUSTED_PROXIES": "10.0.0.7,fd00::/8",
            "DARKROOM_ADMIN_LISTEN": "[::1]:8081",
            "DARKROOM_METRICS_PUBLIC": "true",
            "DARKROOM_LOG_FORMAT": "JSON",
            "DARKROOM_LOG_LEVEL": "Debug",
            "DARKROOM_SYNC_TIMEOUT_S": "10",
        },
    )

    settings = Settings.load()

    assert settings.public_url == "https://images.example/darkroom"
    networks = ("10.0.0.0/8", "fd00::/8", "192.168.1.7/32")
    assert settings.allow_networks == tuple(ip_network(text) for text in networks)
    assert settings.trusted_proxies == (ip_network("10.0.0.7/32"), ip_network("fd00::/8"))
    assert settings.admin_address == ("::1", 8081)
    assert (settings.metrics_public, settings.log_format, settings.log_level) == (True, "json", "debug")
    assert settings.sync_timeout_s == 10


def test_the_dotenv_file_counts_and_the_environment_wins(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        "DARKROOM_PORT=9001\nDARKROOM_HOST=from.file\nOPENAI_API_KEY=file\nAWS_REGION=eu\n"
    )
    set_all(environment, {"DARKROOM_HOST": "from.environment", "THE_ROUTER_API_KEY": "environment"})

    settings = Settings.load()

    assert (settings.host, settings.port) == ("from.environment", 9001)
    assert settings.variable("OPENAI_API_KEY") == "file"
    assert settings.variables(["OPENAI_API_KEY", "THE_ROUTER_API_KEY", "XAIROUTER_API_KEY"]) == {
        "OPENAI_API_KEY": "file",
        "THE_ROUTER_API_KEY": "environment",
    }
    assert settings.aws_variables() == {"AWS_REGION": "eu"}


def test_an_empty_variable_is_as_good_as_none(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, {"DARKROOM_REDIS_URL": "", "DARKROOM_PORT": "", "OPENAI_API_KEY": ""})

    settings = Settings.load()

    assert (settings.redis_url, settings.port) == (None, 8080)
    assert settings.variable("OPENAI_API_KEY") is None


def test_a_binary_dotenv_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")

    assert "'.env' cannot be read" in mistakes()[0]


WRONG = [
    ("DARKROOM_PORT", "http", "a port from 1 to 65535"),
    ("DARKROOM_PORT", "0", "a port from 1 to 65535"),
    ("DARKROOM_PORT", "65536", "a port from 1 to 65535"),
    ("DARKROOM_PORT", "tcp://10.0.0.7:80", "a port from 1 to 65535"),
    ("DARKROOM_PUBLIC_URL", "images.example", "http://"),
    ("DARKROOM_PUBLIC_URL", "https://images.example?a=b", "http://"),
    ("DARKROOM_DATABASE_URL", "mysql://root:hunter2@db/darkroom", "postgresql://"),
    ("DARKROOM_DATABASE_URL", "sqlite://", "postgresql://"),
    ("DARKROOM_DATABASE_URL", "sqlite:///:memory:", "postgresql://"),
    ("DARKROOM_REDIS_URL", "redis.example:6379", "redis://"),
    ("DARKROOM_REDIS_URL", "redis://redis:6379", "DARKROOM_DATABASE_URL"),
    ("DARKROOM_STORAGE_URL", "/srv/pictures", "file:///"),
    ("DARKROOM_STORAGE_URL", "file://pictures", "file:///"),
    ("DARKROOM_STORAGE_URL", "s3:///prefix", "s3://"),
    ("DARKROOM_STORAGE_URL", "s3://key:hunter2@bucket", "AWS_"),
    ("DARKROOM_API_KEY", "short", "32 or more"),
    ("DARKROOM_API_KEY", "a key with spaces in it, and long enough", "space"),
    ("DARKROOM_API_KEY", "ein-schlüssel-mit-umlaut-und-lang-genug", "ASCII"),
    ("DARKROOM_ADMIN_KEY", "short", "32 or more"),
    ("DARKROOM_SECRET_KEY", f"{SECRET_KEY},short", "32 or more"),
    ("DARKROOM_SECRET_KEY", ",", "32 or more"),
    ("DARKROOM_ALLOW_NETWORKS", "10.0.0.1/8", "10.0.0.0/8"),
    ("DARKROOM_ALLOW_NETWORKS", "intranet", "10.0.0.0/8"),
    ("DARKROOM_TRUSTED_PROXIES", "*", "10.0.0.0/8"),
    ("DARKROOM_SYNC_TIMEOUT_S", "soon", "seconds"),
    ("DARKROOM_SYNC_TIMEOUT_S", "0", "seconds"),
    ("DARKROOM_SYNC_TIMEOUT_S", "nan", "seconds"),
    ("DARKROOM_RESULT_TTL_S", "0.5", "seconds"),
    ("DARKROOM_LEASE_S", "1", "seconds"),
    ("DARKROOM_MAX_BODY_BYTES", "200MB", "bytes"),
    ("DARKROOM_MAX_IMAGE_BYTES", "-1", "bytes"),
    ("DARKROOM_MAX_IMAGES", "0", "count"),
    ("DARKROOM_MAX_PIXELS", "0", "count"),
    ("DARKROOM_MAX_PROMPT_CHARS", "0", "count"),
    ("DARKROOM_ADMIN_LISTEN", "8081", "HOST:PORT"),
    ("DARKROOM_WORKER_LISTEN", "9090", "HOST:PORT"),
    ("DARKROOM_METRICS_PUBLIC", "perhaps", "true or false"),
    ("DARKROOM_LOG_FORMAT", "xml", "console or json"),
    ("DARKROOM_LOG_LEVEL", "loud", "debug, info"),
    ("DARKROOM_OTLP_ENDPOINT", "collector:4317", "http://"),
]


@pytest.mark.parametrize("name, value, wanted", WRONG)
def test_a_wrong_value_is_told_with_what_to_set(
    environment: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, wanted: str
) -> None:
    environment.setenv(name, value)

    (said,) = mistakes()

    assert said.startswith(f"{name} ")
    assert wanted in said
    assert "hunter2" not in said
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["DARKROOM_API_KEY", "DARKROOM_ADMIN_KEY", "DARKROOM_SECRET_KEY"])
@pytest.mark.parametrize(
    "weak",
    [
        "",
        "short",
        "x" * 40,
        "changeme-changeme-changeme-changeme",
        "CHANGEMECHANGEMECHANGEMECHANGEME",
        "Please_Change_Me_Please_Change_Me",
        "password1234password1234password1234",
        "your-secret-key-here-your-secret-key",
    ],
)
def test_a_missing_or_weak_secret_stops_production(
    environment: pytest.MonkeyPatch, name: str, weak: str
) -> None:
    set_all(environment, {**PRODUCTION, name: weak})

    (said,) = mistakes()

    assert said.startswith(f"{name} is {'too weak' if weak else 'not set'}")
    assert "python3 -c" in said
    assert not weak or weak not in said


def test_one_key_for_clients_and_operators_is_refused(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, {**PRODUCTION, "DARKROOM_ADMIN_KEY": API_KEY})

    assert mistakes() == (
        "DARKROOM_ADMIN_KEY is the same as DARKROOM_API_KEY. Set DARKROOM_ADMIN_KEY to a key of its own.",
    )


@pytest.mark.parametrize("host, listen", [("127.0.0.1", "127.0.0.1:8080"), ("0.0.0.0", "127.0.0.1:8080")])
def test_operators_are_not_served_where_everybody_is(
    environment: pytest.MonkeyPatch, host: str, listen: str
) -> None:
    set_all(environment, {"DARKROOM_HOST": host, "DARKROOM_ADMIN_LISTEN": listen})
    (said,) = mistakes()
    assert said.startswith(f"DARKROOM_ADMIN_LISTEN is taken: {host}:8080 serves everybody.")


def test_all_mistakes_are_told_at_once(environment: pytest.MonkeyPatch) -> None:
    set_all(
        environment,
        {
            "DARKROOM_DATABASE_URL": "postgresql://db/darkroom",
            "DARKROOM_PORT": "none",
            "DARKROOM_LEASE_S": "0",
        },
    )

    names = [said.split()[0] for said in mistakes()]

    assert names == [
        "DARKROOM_PORT",
        "DARKROOM_API_KEY",
        "DARKROOM_ADMIN_KEY",
        "DARKROOM_SECRET_KEY",
        "DARKROOM_LEASE_S",
    ]


@pytest.mark.parametrize("name", ["DARKROOM_API_KEY", "DARKROOM_ADMIN_KEY", "DARKROOM_SECRET_KEY"])
@pytest.mark.parametrize(
    "long_enough",
    [
        "3f9a1c7e5b2d8064e1a7c93f5b0d2846",
        "test-api-key-0123456789abcdef0123456789",
        "0123456789abcdef0123456789abcdef",
        "darkroom-acceptance-admin-key-0001",
        "a-sentence-that-somebody-made-up-on-a-monday",
    ],
)
def test_any_text_of_32_characters_does_for_production(
    environment: pytest.MonkeyPatch, name: str, long_enough: str
) -> None:
    set_all(environment, {**PRODUCTION, name: long_enough})

    assert Settings.load().secret_values()


@pytest.mark.parametrize("strong", [API_KEY, ADMIN_KEY, SECRET_KEY])
def test_a_random_secret_is_never_called_guessable(strong: str) -> None:
    assert not is_guessable(strong)


def test_a_misspelled_name_is_noticed(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, {"DARKROOM_DATABSE_URL": "postgresql://db", "DARKROOM_SERVICE_HOST": "10.0.0.7"})

    assert Settings.load().misspelled_names() == {"DARKROOM_DATABSE_URL": "DARKROOM_DATABASE_URL"}


def test_settings_cannot_be_changed() -> None:
    settings = Settings.load()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]  # that it is refused is the point


def test_a_client_finds_the_keys_of_the_gateway_in_its_folder(environment: pytest.MonkeyPatch) -> None:
    assert ClientSettings.load().api_key is None
    kept = json.loads(Settings.load().secrets_file.read_text())

    found = ClientSettings.load()

    assert found.api_key is not None
    assert found.admin_key is not None
    assert found.api_key.get_secret_value() == kept["api_key"]
    environment.setenv("DARKROOM_ADMIN_KEY", ADMIN_KEY)
    changed = ClientSettings.load()
    assert changed.admin_key is not None
    assert changed.admin_key.get_secret_value() == ADMIN_KEY


def test_a_client_needs_no_secrets_of_production(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, {"DARKROOM_PUBLIC_URL": "https://images.example", "DARKROOM_API_KEY": API_KEY})

    found = ClientSettings.load()

    assert found.public_url == "https://images.example"
    assert found.admin_key is None
