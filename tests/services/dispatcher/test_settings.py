"""What the dispatcher's environment must say."""

from pathlib import Path

import pytest

from libs.service_kit.settings import load_settings
from services.dispatcher.main import main
from services.dispatcher.settings import DispatcherSettings

GOOD = {
    "OPS_PORT": "0",
    "INTERNAL_TOKEN": "x" * 16,
    "POSTGRES_DSN": "postgresql://localhost/postrider",
    "POSTRIDER_CONFIG": "postrider.yaml",
    "DISPATCHER_GATEWAY": "demo",
    "INBOUND_KEY": "k" * 16,
    "DRAIN_BUDGET_SECONDS": "17",
}


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("INBOUND_KEY", None, "INBOUND_KEY: Field required"),
        ("INBOUND_KEY", "short", "INBOUND_KEY: must be 16 to 64 octets"),
        ("INBOUND_KEY", "k" * 65, "INBOUND_KEY: must be 16 to 64 octets"),
        ("INBOUND_KEY", "ä" * 33, "INBOUND_KEY: must be 16 to 64 octets"),
        (
            "DRAIN_BUDGET_SECONDS",
            "16.9",
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


def test_a_gateway_that_the_file_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    file = tmp_path / "p.yaml"
    entry = "{id: other, type: smpp, host: h, port: 1, systemId: me}"
    file.write_text(f"defaultGateway: other\ngateways: [{entry}]\n")
    for name, value in (GOOD | {"POSTRIDER_CONFIG": str(file)}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == "DISPATCHER_GATEWAY: there is no gateway 'demo' in the configuration"
