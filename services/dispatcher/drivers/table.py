"""Every gateway type and its driver, listed: a new type is one line here and one file beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libs.service_kit.config_file import Gateway, SmppGateway
from services.dispatcher.drivers.port import Callbacks, Driver
from services.dispatcher.drivers.smpp import SmppDriver

DRIVERS: dict[type[Gateway], Callable[[Any, Callbacks], Driver]] = {
    SmppGateway: SmppDriver,
}


def make_driver(gateway: Gateway, callbacks: Callbacks) -> Driver:
    """The driver of a configured gateway. Connects to nothing yet."""
    return DRIVERS[type(gateway)](gateway, callbacks)
