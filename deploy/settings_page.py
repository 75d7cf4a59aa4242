"""`python -m deploy.settings_page` writes docs/settings.md from the services' settings, which alone say what there is."""

from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from libs.service_kit.settings import ConfiguredSettings, DatabaseSettings, ServiceSettings
from services.api_gateway.settings import Settings as ApiSettings
from services.dispatcher.settings import DispatcherSettings
from services.inbound.settings import InboundSettings
from services.projection.settings import ProjectionSettings
from services.receipts.settings import ReceiptsSettings
from services.resolver.settings import ResolverSettings
from services.scheduler.settings import SchedulerSettings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
SERVICES: dict[str, type[ServiceSettings]] = {
    "api_gateway": ApiSettings,
    "resolver": ResolverSettings,
    "scheduler": SchedulerSettings,
    "dispatcher": DispatcherSettings,
    "receipts": ReceiptsSettings,
    "projection": ProjectionSettings,
    "inbound": InboundSettings,
}

BEGINNING = """\
# Settings

What each service is told by its environment; every problem is listed at start. Gateways and API keys stand in the file that
`POSTRIDER_CONFIG` names: [deploy/local/postrider.yaml](../deploy/local/postrider.yaml) shows all of it.

This page is made by `python -m deploy.settings_page`.
"""


def page() -> str:
    """The whole page."""
    parts = [BEGINNING, "## Every service", *_table(ServiceSettings)]
    parts += ["", f"## All with a schema: {_services_with(DatabaseSettings)}", *_table(DatabaseSettings)]
    parts += [
        "",
        f"## All that know gateways or keys: {_services_with(ConfiguredSettings)}",
        *_table(ConfiguredSettings),
    ]
    for name, settings in SERVICES.items():
        parts += ["", f"## `{name}`", *_table(settings)]
    return "\n".join(parts) + "\n"


def _services_with(kind: type[ServiceSettings]) -> str:
    return ", ".join(f"`{name}`" for name, settings in SERVICES.items() if issubclass(settings, kind))


def _table(settings: type[ServiceSettings]) -> Iterator[str]:
    """What this class itself says, and not those that it comes from."""
    yield "\n| variable | default | |\n|---|---|---|"
    for name in vars(settings).get("__annotations__", {}):
        field = settings.model_fields[name]
        yield f"| `{name.upper()}` | {_default(field)} | {_meaning(field)} |"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "must be set"
    return f"`{field.default:g}`" if isinstance(field.default, (int, float)) else f"`{field.default}`"


def _meaning(field: FieldInfo) -> str:
    limit = {name: getattr(rule, name) for rule in field.metadata for name in ("gt", "ge", "le") if hasattr(rule, name)}
    if "ge" in limit and "le" in limit:
        said = [f"{limit['ge']:,} to {limit['le']:,}"]
    else:
        words = {"gt": "above", "ge": "at least", "le": "at most"}
        said = [f"{words[name]} {value:,}" for name, value in limit.items() if (name, value) != ("ge", 0)]
    return (field.description or "") + (f" ({', '.join(said)})" if said else "")


if __name__ == "__main__":
    PAGE.write_text(page())
