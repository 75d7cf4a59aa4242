"""Which gateway a message goes out through. Today there is one answer: the configured default."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from libs.contracts.events import Message
from libs.service_kit.config_file import Configuration, Gateway
from services.resolver.contacts import Contact

Route: TypeAlias = Callable[[Message, Contact], Gateway]
"""Chooses the gateway of a message to a person. It is asked once per leg, and must answer from memory."""


def default_route(configuration: Configuration) -> Route:
    """Everything goes through the default gateway."""
    gateway = configuration.gateway(configuration.default_gateway)

    def route(message: Message, contact: Contact) -> Gateway:
        return gateway

    return route
