"""What the dispatcher's environment must say."""

import pytest

from libs.service_kit.settings import load_settings
from services.dispatcher.settings import DispatcherSettings

GOOD = {
    "OPS_PORT": "0",
    "INTERNAL_TOKEN": "x" * 16,
    "POSTGRES_DSN": "postgresql://localhost/postrider",
    "POSTRIDER_CONFIG": "postrider.yaml",
    "DISPATCHER_GATEWAY": "demo",
    "INBOUND_KEY": "k" * 16,
}


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("INBOUND_KEY", None, "INBOUND_KEY: Field required"),
        ("INBOUND_KEY", "short", "INBOUND_KEY: Value error, must be 16 to 64 octets"),
        ("INBOUND_KEY", "k" * 65, "INBOUND_KEY: Value error, must be 16 to 64 octets"),
        (
            "DRAIN_BUDGET_SECONDS",
            "16",
            "DISPATCHER_DRAIN_SECONDS and 5 s for closing must fit into DRAIN_BUDGET_SECONDS",
        ),
    ],
)
def test_what_is_not_right_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str | None, told: str
):
    for name, good in GOOD.items():
        monkeypatch.setenv(name, good)
    assert load_settings(DispatcherSettings).dispatcher_gateway == "demo"
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit):
        load_settings(DispatcherSettings)
    assert told in capsys.readouterr().err
