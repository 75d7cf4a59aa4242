"""Every gateway type and its driver, listed: a new type is one line here and one file beside."""

from __future__ import annotations

from collections.abc import Callable

from libs.service_kit.config_file import SmppGateway
from services.dispatcher.drivers.port import Callbacks, Driver
from services.dispatcher.drivers.smpp import SmppDriver

DRIVERS: dict[str, Callable[[SmppGateway, Callbacks], Driver]] = {
    "smpp": SmppDriver,
}


def make_driver(gateway: SmppGateway, callbacks: Callbacks) -> Driver:
    """The driver of a configured gateway. Connects to nothing yet."""
    return DRIVERS[gateway.type](gateway, callbacks)
