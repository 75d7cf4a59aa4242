"""What the projection's environment must say."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from libs.contracts.http.requests import MAX_VALIDITY_SECONDS
from services.api_gateway.checks import MAX_AHEAD
from services.projection.settings import ProjectionSettings

GOOD = {
    "ops_port": 0,
    "internal_token": "x" * 16,
    "postgres_dsn": "postgresql://localhost/postrider",
    "postrider_config": "postrider.yaml",
}


def test_a_message_is_kept_for_longer_than_it_may_wait_to_be_sent() -> None:
    waiting = (MAX_AHEAD + timedelta(seconds=MAX_VALIDITY_SECONDS)).days
    with pytest.raises(ValidationError, match="projection_keep_days"):
        ProjectionSettings.model_validate(GOOD | {"projection_keep_days": waiting})
    assert ProjectionSettings.model_validate(GOOD | {"projection_keep_days": 380}).projection_keep_days == 380
