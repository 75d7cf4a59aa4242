from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.admin.config_resource import ConfigResource

class NewTopic:
    name: str
    num_partitions: int
    replication_factor: int
    topic_configs: Mapping[str, str]
    def __init__(
        self,
        name: str,
        num_partitions: int,
        replication_factor: int,
        replica_assignments: Mapping[int, Sequence[int]] | None = ...,
        topic_configs: Mapping[str, str] | None = ...,
    ) -> None: ...

class CreateTopicsResponse:
    topic_errors: list[tuple[Any, ...]]

class DescribeConfigsResponse:
    resources: list[tuple[int, str | None, int, str, list[tuple[Any, ...]]]]

class AIOKafkaAdminClient:
    def __init__(
        self, *, bootstrap_servers: str | Sequence[str] = ..., client_id: str = ..., request_timeout_ms: int = ...
    ) -> None: ...
    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def create_topics(
        self, new_topics: Sequence[NewTopic], timeout_ms: int | None = ..., validate_only: bool = ...
    ) -> CreateTopicsResponse: ...
    async def describe_topics(self, topics: Sequence[str] | None = ...) -> list[dict[str, Any]]: ...
    async def describe_cluster(self) -> dict[str, Any]: ...
    async def describe_configs(self, config_resources: Sequence[ConfigResource]) -> list[DescribeConfigsResponse]: ...
