"""The stack's own doing, with fake services; real ones are for the end-to-end tests."""

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from deploy import running_stack
from deploy.local import control, run, topology
from deploy.local.ports import HOST, Ports, PortTakenError, free_port
from deploy.local.processes import StartError
from deploy.local.run import DEFAULT_CONFIG
from deploy.local.running_lock import AlreadyRunningError, running_lock
from deploy.local.stack import Stack
from deploy.local.supervisor import missing
from libs.service_kit.config_file import ConfigFileError, Configuration, Gateway

FAKE_SERVICE = Path(__file__).with_name("fake_service.py")
IN_ORDER = [
    *("carrier", "projection", "receipts", "inbound"),
    *("dispatcher-demo-1", "scheduler", "resolver", "api-gateway"),
]


def make_stack(directory: Path, said: list[str], **options) -> Stack:
    """A stack that believes there is a Kafka and, unless told otherwise, a PostgreSQL."""
    names = {name: {"NAME": name} for name in (*IN_ORDER, "dispatcher-demo-2", "dispatcher-demo-3")}
    defaults = {
        "config": DEFAULT_CONFIG,
        "kafka": "kafka.invalid:9092",
        "postgres_dsn": "postgresql://postgres.invalid/postrider",
        "extra": {"*": {"STOP_ORDER": str(directory / "order")}, **names},
    }
    return Stack(directory=directory, say=said.append, **{**defaults, **options})


@pytest.fixture
def fake_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "command", lambda _: (sys.executable, str(FAKE_SERVICE)))


@pytest.fixture
async def stack(fake_services: None, tmp_path: Path) -> AsyncIterator[Stack]:
    async with make_stack(tmp_path, []) as stack:
        yield stack


async def test_everything_starts_and_stops_in_reverse_order(fake_services: None, tmp_path: Path) -> None:
    said: list[str] = []
    async with make_stack(tmp_path, said) as stack:
        assert [process.spec.name for process in stack.processes] == IN_ORDER
        assert all(process.pid for process in stack.processes)
    assert (tmp_path / "order").read_text().split() == IN_ORDER[::-1]
    assert {line.split()[2] for line in said[: len(IN_ORDER)]} == set(IN_ORDER)


async def test_a_gateway_is_scaled_up_and_down_while_the_rest_runs(stack: Stack) -> None:
    others = [process.pid for process in stack.processes]
    await stack.scale("demo", 3)
    assert [p.spec.name for p in stack.dispatchers("demo")] == [f"dispatcher-demo-{n}" for n in (1, 2, 3)]
    assert stack.process("dispatcher-demo-3").spec.environment["DISPATCHER_GATEWAY"] == "demo"
    await stack.scale("demo", 1)
    assert [p.spec.name for p in stack.dispatchers("demo")] == ["dispatcher-demo-1"]
    assert [process.pid for process in stack.processes] == others
    assert (stack.directory / "order").read_text().split() == ["dispatcher-demo-3", "dispatcher-demo-2"]


async def test_an_unknown_gateway_or_process_is_named(stack: Stack) -> None:
    with pytest.raises(KeyError, match="there is no gateway 'other'"):
        await stack.scale("other", 2)
    with pytest.raises(KeyError, match="no process 'other'; there are carrier, "):
        stack.process("other")


async def test_every_process_is_told_where_the_others_are(stack: Stack) -> None:
    environment = stack.environment()
    api = stack.process("api-gateway").spec.environment
    assert environment["RESOLVER_HEALTH"] == f"{api['RESOLVER_URL']}/health/ready"
    assert environment["PROJECTION_HEALTH"] == f"{api['PROJECTION_URL']}/health/ready"
    assert environment["POSTRIDER_URL"] == f"http://127.0.0.1:{api['API_PORT']}"
    assert environment["CARRIER_SMPP"] == f"127.0.0.1:{stack.process('carrier').spec.environment['CARRIER_SMPP_PORT']}"
    assert environment["POSTRIDER_API_KEY"] == api["POSTRIDER_API_KEY"]
    assert {p.spec.environment["INTERNAL_TOKEN"] for p in stack.processes} == {stack.secrets["INTERNAL_TOKEN"]}
    assert environment["DISPATCHER_DEMO_1_HEALTH"].endswith("/health/ready")


async def test_how_a_kafka_lets_us_in_is_said_of_the_one_that_is_given_and_not_of_our_own(
    fake_services: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "elsewhere:9092")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    for kafka, secured in (("kafka.invalid:9092", {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}), (None, {})):
        given = make_stack(tmp_path, [], kafka=kafka)
        monkeypatch.setattr(given, "_start_servers", _no_servers)
        async with given as stack:
            told = {"KAFKA_BOOTSTRAP_SERVERS": stack.kafka, **secured}
            heard = stack.process("resolver").spec.environment
            assert {name: value for name, value in heard.items() if name in topology.KAFKA} == told
            assert told.items() <= stack.environment().items()


async def _no_servers(_logs: Path) -> None: ...


async def test_secrets_are_made_once_and_are_nobody_elses(fake_services: None, tmp_path: Path) -> None:
    async with make_stack(tmp_path, []) as first:
        pass
    for _ in range(2):
        async with make_stack(tmp_path, []) as later:
            assert first.api_key == later.api_key
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("variable", ["POSTRIDER_PORT", "CARRIER_SMPP_PORT", "CARRIER_HTTP_PORT"])
async def test_a_taken_port_is_named_with_its_variable_and_nothing_is_left(
    fake_services: None, tmp_path: Path, variable: str
) -> None:
    ports = Ports.free()
    stack = make_stack(tmp_path, [], ports=ports)
    expected = f"port {ports[variable]} .* is taken; set {variable} to another one"
    with socket.create_server((HOST, ports[variable])), pytest.raises(PortTakenError, match=expected):
        await stack.start()
    assert stack.processes == ()


async def test_a_part_that_does_not_start_stops_the_others(fake_services: None, tmp_path: Path) -> None:
    stack = make_stack(tmp_path, [])
    with pytest.raises(StartError, match="resolver ended while starting"):
        await stack.start(once={"resolver": {"DIE_AT_ONCE": "yes"}})
    assert stack.processes == ()
    for name in IN_ORDER[1:]:
        assert await missing(f"http://{HOST}:{stack.ports.ops(name)}/health/ready") is not None


async def test_a_mistake_in_the_configuration_is_told_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text(DEFAULT_CONFIG.read_text().replace("window: 500", "window: many"))
    line = next(n for n, text in enumerate(config.read_text().splitlines(), 1) if "window: many" in text)
    with pytest.raises(ConfigFileError, match=rf"my\.yaml:{line}: gateways.*window"):
        await make_stack(tmp_path, [], config=config).start()


async def test_no_simulated_carrier_without_a_gateway_that_points_at_it(fake_services: None, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text(DEFAULT_CONFIG.read_text().replace("host: 127.0.0.1", "host: smsc.example"))
    async with make_stack(tmp_path, [], config=config) as stack:
        assert [process.spec.name for process in stack.processes] == IN_ORDER[1:]
        assert "CARRIER_URL" not in stack.environment()


async def test_a_server_that_dies_is_started_again_and_that_is_said(
    fake_services: None, server_directory: Path
) -> None:
    said: list[str] = []
    async with make_stack(server_directory / "stack", said, postgres_dsn=None) as stack:
        os.kill(stack.database.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while "PostgreSQL is ready again" not in said:
                await asyncio.sleep(0.05)
        connection = await asyncpg.connect(stack.postgres_dsn)
        await connection.close()
    assert "PostgreSQL died (signal 9); starting it again in 0.5 s" in said
    assert stack.database.pid is None
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "keep PostgreSQL"]


def test_a_port_that_is_no_number_is_named() -> None:
    with pytest.raises(StartError, match="KAFKA_PORT=tcp://kafka is not a port"):
        Ports.from_environment({"KAFKA_PORT": "tcp://kafka"})


async def test_ports_that_are_used_up_are_told_of(fake_services: None, tmp_path: Path) -> None:
    base = {Ports.OPS_BASE: "65530"}
    ports = Ports.from_environment({**{name: str(free_port()) for name in Ports.DEFAULTS}, **base})
    with pytest.raises(StartError, match="no port is left for the health of api-gateway: set OPS_PORT_BASE lower"):
        await make_stack(tmp_path, [], ports=ports).start()


async def test_the_running_stack_answers_over_its_socket(stack: Stack) -> None:
    path = stack.directory / "control.sock"
    async with control.serve(stack, path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

        async def ask(**request: object) -> dict[str, object]:
            return await asyncio.to_thread(control.ask, request, path)

        def named_in_file() -> list[str]:
            found = running_stack.environment({}, file=stack.directory / "env")
            return [name for name in found if name.startswith("DISPATCHER_")]

        answer = await ask(command="scale", gateway="demo", replicas=2)
        urls = {p.spec.name: p.spec.ready_url for p in stack.dispatchers("demo")}
        assert answer == {"gateway": "demo", "replicas": 2, **urls} and len(urls) == 2
        assert named_in_file() == ["DISPATCHER_DEMO_1_HEALTH", "DISPATCHER_DEMO_2_HEALTH"]
        assert stat.S_IMODE((stack.directory / "env").stat().st_mode) == 0o600
        await ask(command="scale", gateway="demo", replicas=0)
        assert named_in_file() == []
        assert await ask(command="kill", process="resolver") == {"killed": "resolver"}
        await stack.process("resolver").wait_until_ready(within=20)
        status = (await ask(command="status"))["processes"]
        assert {"name": "resolver", "pid": stack.process("resolver").pid, "deaths": 1} in status
        with socket.create_server((HOST, stack.ports.ops("dispatcher-demo-2"))):
            answer = await ask(command="scale", gateway="demo", replicas=2)
        assert "is taken" in answer["error"] and named_in_file() == ["DISPATCHER_DEMO_1_HEALTH"]
        assert "no gateway 'x'" in (await ask(command="scale", gateway="x", replicas=2))["error"]
        assert "usage" in (await ask(command="explode"))["error"]
        assert "usage" in (await ask(command="scale", gateway="demo", replicas=-1))["error"]


def test_a_second_stack_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    with (
        running_lock(tmp_path),
        pytest.raises(AlreadyRunningError, match=f"process {os.getpid()}"),
        running_lock(tmp_path),
    ):
        pass
    with running_lock(tmp_path):
        pass


class _HttpGateway(Gateway):
    url: str

    @property
    def replicas_allowed(self) -> int:
        return 1


def test_a_gateway_of_a_type_without_a_host_is_not_the_simulated_carrier() -> None:
    gateway = _HttpGateway(id="web", url="https://sms.example")
    configuration = Configuration.model_construct(gateways=(gateway,))
    assert not topology.uses_simulated_carrier(configuration, Ports.free())


def test_servers_that_an_earlier_run_has_named_are_its_own_and_others_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ports = Ports.from_environment(os.environ)
    for kafka, postgres, given in (("KAFKA_PORT", "POSTGRES_PORT", False), ("POSTGRES_PORT", "KAFKA_PORT", True)):
        servers, dsn = f"{HOST}:{ports[kafka]}", f"postgresql://postrider:word@{HOST}:{ports[postgres]}/postrider"
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
        monkeypatch.setenv("POSTGRES_DSN", dsn)
        found = run.stack_from_environment()
        assert (found._kafka_given, found._postgres_given) == ((servers, dsn) if given else (None, None))
