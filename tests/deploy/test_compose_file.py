"""docker-compose.yml, read without an engine. `make test-compose` runs it."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import REPOSITORY, settings_page
from deploy.containers import environment, images
from deploy.local.topology import NICE
from libs.service_kit.config_file import load_configuration
from libs.service_kit.settings import ServiceSettings

TEXT = (REPOSITORY / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("postrider-services:")}
ENGINES_GRACE_SECONDS = 10  # what a container has that says nothing
HARD_END_SECONDS = 5  # libs/service_kit/lifecycle.py: this long after its drain budget a service ends hard

every_service = pytest.mark.parametrize("name", SERVICES)


def seconds(duration: str) -> int:
    found = re.fullmatch(r"(\d+)s", duration)
    assert found, f"{duration} is not in seconds"
    return int(found[1])


@every_service
def test_no_service_runs_as_root(name: str) -> None:
    user, _, group = SERVICES[name]["user"].partition(":")
    assert int(user) >= 1000
    assert int(group) >= 1000


@every_service
def test_every_service_has_a_read_only_file_system_and_no_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]


@every_service
def test_every_service_is_checked_and_started_again(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


@every_service
def test_what_is_written_goes_to_a_named_volume_or_to_memory(name: str) -> None:
    volumes = yaml.safe_load(TEXT)["volumes"]
    for mounted in SERVICES[name].get("volumes", []):
        assert mounted.endswith(":ro") or mounted.partition(":")[0] in volumes


@pytest.mark.parametrize("name", ["kafka", "postgres"])
def test_a_servers_data_outlive_its_container_and_it_has_time_to_end(name: str) -> None:
    start = (REPOSITORY / f"deploy/images/{name}/start").read_text()
    [home] = re.findall(r"^data=(\S+)/data$", start, flags=re.MULTILINE)
    assert f"{name}:{home}" in SERVICES[name]["volumes"]
    assert seconds(SERVICES[name]["stop_grace_period"]) > ENGINES_GRACE_SECONDS


@every_service
def test_only_the_api_is_published(name: str) -> None:
    assert ("ports" in SERVICES[name]) == (name == "api_gateway")


@pytest.mark.parametrize("name", OURS)
def test_a_stop_may_take_longer_than_the_drain(name: str) -> None:
    fallback = ServiceSettings.model_fields["drain_budget_seconds"].default
    drain = float(OURS[name]["environment"].get("DRAIN_BUDGET_SECONDS", fallback))
    assert seconds(OURS[name]["stop_grace_period"]) > drain + HARD_END_SECONDS


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_asked_for_its_health_where_it_serves_it(name: str) -> None:
    told = OURS[name]["environment"]
    port = told.get("OPS_PORT") or told["CARRIER_HTTP_PORT"]
    assert OURS[name]["healthcheck"]["test"][1:] == ["python", "-m", "libs.service_kit.health_check", port]


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_told_all_that_it_must_know_and_where_the_others_are(name: str) -> None:
    told: dict[str, str] = OURS[name]["environment"]
    fields = settings_page.SERVICES[name].model_fields if name in settings_page.SERVICES else {}
    assert {field.upper() for field, known in fields.items() if known.is_required()} <= told.keys()
    for variable, url in told.items():
        if variable.endswith("_URL"):
            other = variable.removesuffix("_URL").lower()
            assert url == f"http://{other}:{OURS[other]['environment']['OPS_PORT']}"
    if "POSTRIDER_CONFIG" in told:
        assert any(mounted.endswith(f":{told['POSTRIDER_CONFIG']}:ro") for mounted in OURS[name]["volumes"])


def test_every_program_of_ours_has_an_entry() -> None:
    programs = {f"services.{main.parent.name}.main" for main in (REPOSITORY / "services").glob("*/main.py")}
    assert {service["command"][0] for service in OURS.values()} == programs


def test_the_demo_alone_has_a_simulated_carrier() -> None:
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "carrier": ["demo"]
    }


def test_every_image_has_a_build_that_is_made_by_make_images() -> None:
    named = {service["image"].partition(":")[0] for service in SERVICES.values()}
    assert named == {f"postrider-{name}" for name in images.NAMES}
    for service in SERVICES.values():
        assert (REPOSITORY / service["build"]["dockerfile"]).is_file()


def test_images_are_built_under_the_tag_that_compose_looks_for(tmp_path: Path) -> None:
    file = tmp_path / "env"
    assert images.version({}, file) == "local"
    environment.write(file, {"POSTRIDER_VERSION": "7"})
    assert images.version({}, file) == "7"
    assert images.version({"POSTRIDER_VERSION": "8"}, file) == "8"


def test_what_carries_messages_on_stops_after_what_takes_them_in() -> None:
    way = ["api_gateway", "resolver", "scheduler", "dispatcher", "receipts", "projection"]
    for earlier, later in itertools.pairwise(way):
        assert later in OURS[earlier]["depends_on"]


def test_the_example_of_the_environment_names_every_variable() -> None:
    named = set(re.findall(r"\$\{([A-Z_]+)", TEXT)) | {"COMPOSE_PROJECT_NAME"}
    assert set(environment.read(REPOSITORY / ".env.example")) == named


def test_the_example_holds_no_secret_and_the_copy_holds_one_of_its_own_for_each(tmp_path: Path) -> None:
    example = environment.read(REPOSITORY / ".env.example")
    secrets = {name for name in example if re.search(rf"{name}:\?", TEXT)}
    assert {name for name, value in example.items() if not value} == secrets
    copies = [tmp_path / "one", tmp_path / "two"]
    for copy in copies:
        environment.write(copy)
        assert copy.stat().st_mode & 0o077 == 0
    values = [environment.read(copy)[name] for copy in copies for name in secrets]
    assert len(set(values)) == 2 * len(secrets)
    assert all(re.fullmatch(r"[a-z0-9]{32,64}", value) for value in values)


def test_a_made_environment_is_never_overwritten(tmp_path: Path) -> None:
    environment.write(tmp_path / "env", {"POSTRIDER_PORT": "9"})
    with pytest.raises(FileExistsError):
        environment.write(tmp_path / "env")
    assert environment.read(tmp_path / "env")["POSTRIDER_PORT"] == "9"


def test_the_mounted_configuration_is_right_and_its_gateway_has_a_dispatcher() -> None:
    file = REPOSITORY / "deploy/containers/postrider.yaml"
    configuration = load_configuration(file, {"POSTRIDER_API_KEY": "x" * 16})
    dispatchers = {service["environment"].get("DISPATCHER_GATEWAY") for service in OURS.values()} - {None}
    assert {gateway.id for gateway in configuration.gateways} == dispatchers
    assert {gateway.host for gateway in configuration.gateways} <= set(SERVICES)


def test_processors_go_first_to_what_is_further_on_like_in_the_local_stack() -> None:
    last_first = sorted(OURS, key=lambda name: NICE.get(name, 0))
    shares = [OURS[name].get("cpu_shares", 1024) for name in last_first]
    assert shares == sorted(shares, reverse=True)
    assert {name for name in OURS if "cpu_shares" in OURS[name]} == set(NICE)
