"""The dispatcher with its order broken: attempts are granted as ever, and written only when their outcome is.

`python -m tests.faults.broken_dispatcher`. For the test that shows that the kill test would notice.
"""

from __future__ import annotations

from libs.storage.database import Pool
from services.dispatcher import instance
from services.dispatcher.ledger import Claim, ClaimVerdict, Ledger
from services.dispatcher.main import main


class WrittenAfterwards(Ledger):
    """Claims in a transaction that is rolled back; what settles an attempt then inserts its row."""

    def __init__(self, pool: Pool, *of_this_instance: object) -> None:
        super().__init__(pool, *of_this_instance)
        self._of_this_instance = of_this_instance

    async def claim(self, claim: Claim, age_seconds: float) -> list[ClaimVerdict]:
        async with self._pool.acquire() as connection:
            forgotten = connection.transaction()
            await forgotten.start()
            try:
                return await Ledger(connection, *self._of_this_instance).claim(claim, age_seconds)
            finally:
                await forgotten.rollback()


if __name__ == "__main__":
    instance.Ledger = WrittenAfterwards
    main()
