"""`.venv/bin/python -m deploy.settings_page` writes docs/settings.md from the services' settings, which alone say what there is."""

import ast
import inspect
import itertools
import json
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from deploy import REPOSITORY
from deploy.local.ports import Ports
from deploy.local.run import CARRIER_BEHAVIOUR
from libs.service_kit.kafka import KafkaSettings
from libs.service_kit.settings import ConfiguredSettings, DatabaseSettings, ServiceSettings
from services.api_gateway.settings import ApiGatewaySettings
from services.dispatcher.settings import DispatcherSettings
from services.inbound.settings import InboundSettings
from services.projection.settings import ProjectionSettings
from services.receipts.settings import ReceiptsSettings
from services.resolver.settings import ResolverSettings
from services.scheduler.settings import SchedulerSettings
from services.simulated_carrier.settings import CarrierSettings

PAGE = REPOSITORY / "docs" / "settings.md"
SERVICES: dict[str, type[ServiceSettings]] = {
    "api_gateway": ApiGatewaySettings,
    "resolver": ResolverSettings,
    "scheduler": SchedulerSettings,
    "dispatcher": DispatcherSettings,
    "receipts": ReceiptsSettings,
    "projection": ProjectionSettings,
    "inbound": InboundSettings,
}

PORTS = {
    "POSTRIDER_PORT": "port of the API",
    "KAFKA_PORT": "port of the broker that it starts",
    "KAFKA_CONTROLLER_PORT": "port of that broker's controller",
    "POSTGRES_PORT": "port of the PostgreSQL that it starts",
    "CARRIER_SMPP_PORT": "port of the simulated carrier, for SMPP; the configuration file refers to it",
    "CARRIER_HTTP_PORT": "port of the simulated carrier, for steering and reading it",
    Ports.OPS_BASE: "first of the processes' `OPS_PORT`s: they have this one and those after it",
}
LOCAL = {
    "CONFIG": ("`deploy/local/postrider.yaml`", "the file with gateways and API keys"),
    "KAFKA_BOOTSTRAP_SERVERS": ("a broker of its own", "a Kafka that is there already"),
    "POSTGRES_DSN": ("a server of its own", "a PostgreSQL that is there already"),
    "JAVA_HOME": ("`java` on the PATH", "the Java that runs its broker"),
    "CARRIER_BEHAVIOUR": (f"`{CARRIER_BEHAVIOUR}`", "what the simulated carrier does to begin with"),
    **{name: (f"`{default}`", PORTS[name]) for name, default in Ports.DEFAULTS.items()},
    Ports.OPS_BASE: (f"`{Ports.OPS_BASE_DEFAULT}`", PORTS[Ports.OPS_BASE]),
}

BEGINNING = """\
# Settings

What each service is told by its environment; every problem is listed at start. Gateways and API keys stand in the file that
`POSTRIDER_CONFIG` names: [deploy/local/postrider.yaml](../deploy/local/postrider.yaml) shows all of it.

This page is made by `.venv/bin/python -m deploy.settings_page`. Not on it: `CRASH_AT`, by which tests kill a service at a named point
(`libs/service_kit/crash_points.py`). Never set it where messages count.
"""
LOCAL_WORDS = """
It makes the keys that services need, and keeps them, unless they are given, and hands on what its environment has for services. Its own:"""
HEAD = "\n| variable | default | |\n|---|---|---|"
CARRIER_WORDS = """
For trying and testing; `make run` sets its host, ports, directory and behaviour. All that a behaviour has stands in
[behaviour.py](../services/simulated_carrier/behaviour.py); `PATCH /behaviour` changes it while the carrier runs."""


def page() -> str:
    """The whole page."""
    parts = [BEGINNING, "## Every service", *_table(ServiceSettings)]
    parts += ["", "## Kafka: every service, and the commands that work on it", *_table(KafkaSettings)]
    parts += ["", f"## All with a schema: {_services_with(DatabaseSettings)}", *_table(DatabaseSettings)]
    parts += [
        "",
        f"## All that know gateways or keys: {_services_with(ConfiguredSettings)}",
        *_table(ConfiguredSettings),
    ]
    for name, settings in SERVICES.items():
        parts += ["", f"## `{name}`", *_table(settings)]
    parts += ["", "## `make run`", LOCAL_WORDS, *_local()]
    parts += ["", "## `simulated_carrier`", CARRIER_WORDS, *_carrier()]
    return "\n".join(parts) + "\n"


def _services_with(kind: type[ServiceSettings]) -> str:
    return ", ".join(f"`{name}`" for name, settings in SERVICES.items() if issubclass(settings, kind))


def _table(settings: type[BaseSettings]) -> Iterator[str]:
    """What this class itself says, and not those that it comes from."""
    yield HEAD
    for name in vars(settings).get("__annotations__", {}):
        field = settings.model_fields[name]
        yield f"| `{name.upper()}` | {_default(field)} | {_meaning(field)} |"


def _local() -> Iterator[str]:
    yield HEAD
    for name, (default, meaning) in LOCAL.items():
        yield f"| `{name}` | {default} | {meaning} |"


def _carrier() -> Iterator[str]:
    yield HEAD
    prefix = CarrierSettings.model_config.get("env_prefix", "")
    meanings = attribute_docstrings(CarrierSettings)
    for name, field in CarrierSettings.model_fields.items():
        said = f" ({limits})" if (limits := _limits(field)) else ""
        yield f"| `{prefix}{name.upper()}` | {_default(field)} | {meanings[name]}{said} |"


def attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The string behind each field, by the field's name: Python keeps none of them, so the source is read."""
    (described,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(described, ast.ClassDef)
    found: dict[str, str] = {}
    for before, after in itertools.pairwise(described.body):
        match before, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                found[name] = words
            case _:
                pass
    return found


def _default(field: FieldInfo) -> str:
    match field.default:
        case value if value is PydanticUndefined:
            return "must be set"
        case None:
            return "not set"
        case int() | float() as number:
            return f"`{number:g}`"
        case BaseModel() as model:
            return f"`{json.dumps(model.model_dump(exclude_defaults=True))}`"
        case other:
            return f"`{other}`"


def _meaning(field: FieldInfo) -> str:
    return (field.description or "") + (f" ({limits})" if (limits := _limits(field)) else "")


def _limits(field: FieldInfo) -> str:
    limit = {name: getattr(rule, name) for rule in field.metadata for name in ("gt", "ge", "le") if hasattr(rule, name)}
    if "ge" in limit and "le" in limit:
        return f"{limit['ge']:,} to {limit['le']:,}"
    words = {"gt": "above", "ge": "at least", "le": "at most"}
    return ", ".join(f"{words[name]} {value:,}" for name, value in limit.items() if (name, value) != ("ge", 0))


if __name__ == "__main__":
    PAGE.write_text(page())
