"""What the receipts service needs to know."""

from __future__ import annotations

from pydantic import Field

from libs.service_kit.settings import ConfiguredSettings, DatabaseSettings, FingerprintKey
from libs.storage.retention import LONGEST_KEPT_DAYS


class ReceiptsSettings(DatabaseSettings, ConfiguredSettings):
    receipts_destination_key: FingerprintKey = Field(
        description="16 to 64 octets: the key of the fingerprints by which destinations are compared. Kept for as long as"
        " the data: under another key no older destination agrees with a receipt's"
    )
    receipts_keep_days: int = Field(
        35,
        ge=29,
        le=LONGEST_KEPT_DAYS,
        description="how long provider ids, parked receipts and doubts are kept: longer than the topics and the life of an id together",
    )

    @property
    def destination_key(self) -> bytes:
        return self.receipts_destination_key.get_secret_value().encode()
