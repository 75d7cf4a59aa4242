"""What the receipts service needs to know."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from libs.service_kit.settings import DatabaseSettings


class ReceiptsSettings(DatabaseSettings):
    receipts_destination_key: SecretStr = Field(
        description="16 to 64 octets: the key of the fingerprints by which destinations are compared. Kept for as long as"
        " the data: under another key no older destination agrees with a receipt's"
    )

    @field_validator("receipts_destination_key")
    @classmethod
    def _length(cls, value: SecretStr) -> SecretStr:
        if not 16 <= len(value.get_secret_value().encode()) <= 64:
            raise ValueError("must be 16 to 64 octets")
        return value

    @property
    def destination_key(self) -> bytes:
        return self.receipts_destination_key.get_secret_value().encode()
