"""The receipts service, looking all the time for what was never reported. `python -m tests.services.receipts.sweeping`."""

from services.receipts import unreported
from services.receipts.main import main

if __name__ == "__main__":
    unreported.SWEEP_SECONDS = 0.2
    main()
