"""What the API gateway reads from the environment."""

from __future__ import annotations

from pydantic import Field, HttpUrl

from libs.service_kit.settings import ConfiguredSettings, DatabaseSettings, Host


class ApiGatewaySettings(DatabaseSettings, ConfiguredSettings):
    api_host: Host = Field("127.0.0.1", description="address of the public API")
    api_port: int = Field(8080, ge=0, le=65535, description="its port; 0 picks a free one")
    resolver_url: HttpUrl = Field(description="the resolver's internal HTTP: it owns the contacts")
    projection_url: HttpUrl = Field(description="the projection's internal HTTP: it owns the outbox")
    inbound_url: HttpUrl = Field(description="inbound's internal HTTP: it owns what handsets sent")
    accept_timeout_seconds: float = Field(
        4, gt=0, le=30, description="after which a request that Kafka can't take is 503"
    )
    max_resends: int = Field(3, ge=0, le=100, description="how often one message may be sent again on request")
    forward_timeout_seconds: float = Field(
        15, gt=0, le=60, description="how long the services that own the answers may take"
    )
