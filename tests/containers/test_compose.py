"""docker-compose.yml agrees with the command, the settings and the drain, and gives containers nothing they can do
without.
"""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.assembly import DRAIN_GRACE_S
from app.catalog.loader import load_catalog
from app.cli.main import app
from app.settings import Settings
from app.upstreams.registry import adapter_names
from tests.containers import compose

SERVICES = compose.services()
OWN = compose.own_services()
KNOWN = {f"DARKROOM_{field.upper()}" for field in Settings.model_fields}


@pytest.mark.parametrize("name", OWN)
def test_each_of_our_services_runs_a_command_that_exists(name: str) -> None:
    assert CliRunner().invoke(app, [*OWN[name]["command"], "--help"]).exit_code == 0


def test_the_services_are_those_of_a_production_gateway() -> None:
    assert {name: service["command"] for name, service in OWN.items()} == {
        "api": ["serve"],
        "worker": ["worker"],
        "migrate": ["migrate"],
    }
    assert {"postgres", "redis"} < set(SERVICES)
    assert OWN["worker"]["deploy"]["replicas"] >= 2


def test_every_variable_is_a_setting() -> None:
    passed = {variable for service in OWN.values() for variable in service["environment"]}
    named = {variable for variable in passed | compose.used_variables() if variable.startswith("DARKROOM_")}
    assert named <= KNOWN


def test_the_catalogs_vendor_keys_are_passed_on() -> None:
    catalog = load_catalog(compose.ROOT / "config" / "gateway.yaml", adapter_names())
    keys = {upstream.api_key_env for upstream in catalog.upstreams.values() if upstream.api_key_env}
    for name in ("api", "worker"):
        assert keys <= set(OWN[name]["environment"])


@pytest.mark.parametrize("name", OWN)
def test_each_of_our_services_has_settings_that_are_accepted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in KNOWN:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in OWN[name]["environment"].items():
        monkeypatch.setenv(variable, value)
    settings = Settings.load(make_secrets=False)
    assert not settings.is_embedded
    assert not settings.has_own_workers


def test_a_missing_secret_is_named_together_with_what_to_set() -> None:
    for name, said in compose.mandatory().items():
        assert said.startswith(f"set {name} in .env to ")
        with pytest.raises(compose.VariableMissing):
            compose.document({**compose.made_up_secrets(), name: ""})


def test_no_secret_is_written_into_the_file() -> None:
    secret = compose.made_up_secrets().values()
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if variable.endswith(("PASSWORD", "_KEY", "_AUTH", "_ACCESS_KEY_ID")):
                assert value == "" or value in secret


@pytest.mark.parametrize("name", SERVICES)
class TestEveryContainer:
    def test_can_write_nothing_but_its_volumes_and_bounded_tmpfs(self, name: str) -> None:
        assert SERVICES[name]["read_only"] is True
        assert all("size=" in tmpfs for tmpfs in SERVICES[name]["tmpfs"])

    def test_has_no_capabilities_and_gains_no_privileges(self, name: str) -> None:
        service = SERVICES[name]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"cap_add", "privileged", "devices", "network_mode", "pid", "ipc", "userns_mode"} & set(
            service
        )

    def test_is_not_root(self, name: str) -> None:
        # The image of ours names its user itself; test_dockerfile.py looks at it.
        assert name in OWN or SERVICES[name]["user"] not in {"root", "0", 0}

    def test_is_bounded_in_processes_memory_processor_time_and_logs(self, name: str) -> None:
        service = SERVICES[name]
        assert service["pids_limit"] <= (512 if name == "postgres" else 256)
        assert compose.size_bytes(service["mem_limit"]) > 0
        assert service["cpus"] > 0
        assert {"max-size", "max-file"} <= set(service["logging"]["options"])

    def test_has_somebody_who_buries_its_dead(self, name: str) -> None:
        assert SERVICES[name]["init"] is True

    def test_never_sees_the_engines_socket(self, name: str) -> None:
        assert not [volume for volume in SERVICES[name].get("volumes", []) if "docker.sock" in volume]

    def test_has_an_image_by_plain_name_and_a_fixed_line(self, name: str) -> None:
        repository, _, tag = SERVICES[name]["image"].partition(":")
        assert "." not in repository
        assert name in OWN or (tag and tag != "latest")


@pytest.mark.parametrize("name", ["api", "worker"])
def test_the_grace_outlasts_the_drain(name: str) -> None:
    assert compose.seconds(SERVICES[name]["stop_grace_period"]) >= DRAIN_GRACE_S + 10


@pytest.mark.parametrize("name", ["api", "worker"])
def test_nothing_serves_before_the_tables_are_there(name: str) -> None:
    assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["depends_on"]["roles"] == {"condition": "service_completed_successfully"}
    assert SERVICES["roles"]["depends_on"]["postgres"] == {"condition": "service_healthy"}


@pytest.mark.parametrize("name", ["api", "worker"])
def test_two_of_the_largest_pictures_fit_into_the_memory(name: str) -> None:
    # 12 bytes a pixel at worst, two at a time: app/assets/isolation.py.
    pixels = Settings.model_fields["max_pixels"].default
    assert compose.size_bytes(SERVICES[name]["mem_limit"]) > 2 * 12 * pixels + 300_000_000


def test_only_the_api_is_published_and_to_this_machine_alone() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["api"]
    [published] = SERVICES["api"]["ports"]
    assert published.startswith("127.0.0.1:")
    assert published.endswith(f":{Settings.model_fields['port'].default}")


def test_databases_are_reached_over_an_internal_network_alone() -> None:
    assert compose.document()["networks"]["data"] == {"internal": True}
    for name in ("postgres", "redis", "roles", "migrate"):
        assert SERVICES[name]["networks"] == ["data"]
    for name in ("api", "worker"):
        assert set(SERVICES[name]["networks"]) == {"edge", "data"}


def test_all_processes_share_the_pictures() -> None:
    for name in ("api", "worker"):
        assert "pictures:/data" in SERVICES[name]["volumes"]


def test_the_service_is_another_database_user_than_the_migrations() -> None:
    def user(service: dict[str, Any]) -> str:
        url: str = service["environment"]["DARKROOM_DATABASE_URL"]
        return url.removeprefix("postgresql://").partition(":")[0]

    assert {name: user(service) for name, service in OWN.items()} == {
        "api": "darkroom",
        "worker": "darkroom",
        "migrate": "darkroom_owner",
    }
    assert SERVICES["postgres"]["environment"]["POSTGRES_HOST_AUTH_METHOD"] == "scram-sha-256"


def test_health_is_asked_of_all_that_can_answer() -> None:
    assert "healthcheck" not in SERVICES["api"]  # the image's own
    assert SERVICES["worker"]["healthcheck"] == {
        "disable": True
    }  # it would ask for a port that nobody listens on
    for name in ("postgres", "redis"):
        assert SERVICES[name]["healthcheck"]["test"]
