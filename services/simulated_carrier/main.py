"""The simulated carrier: an SMPP 3.4 SMSC, steered and read over HTTP. `python -m services.simulated_carrier.main`."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

import structlog
from aiohttp import web

from libs.service_kit.logging import configure_logging
from libs.service_kit.settings import load_settings
from services.simulated_carrier.carrier import Carrier
from services.simulated_carrier.http import make_application
from services.simulated_carrier.ledger import Ledger
from services.simulated_carrier.settings import CarrierSettings

_STOP_SECONDS = 5  # 2 for the SMPP sessions, 2 for HTTP requests under way, 1 to spare


async def run(settings: CarrierSettings) -> None:
    """Serves until SIGTERM or SIGINT. OSError when a port is taken or the ledger can't be opened."""
    log = structlog.get_logger()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    ledger = Ledger(settings.ledger_directory)
    carrier = Carrier(settings, ledger)
    runner = web.AppRunner(make_application(carrier), access_log=None, shutdown_timeout=2)
    try:
        smpp_port = await carrier.start()
        await runner.setup()
        await web.TCPSite(runner, settings.host, settings.http_port).start()
        http_port: int = runner.addresses[0][1]
        gc.freeze()
        gc.set_threshold(50_000)  # what waits for its receipt would else be searched for cycles over and over
        log.info("listening", smpp_port=smpp_port, http_port=http_port, next_sequence=ledger.next_sequence)
        await stopping.wait()
        log.info("stopping", sessions=len(carrier.sessions), due_later=carrier.due_later)
        async with asyncio.timeout(_STOP_SECONDS):
            await carrier.stop()
            await runner.cleanup()
    finally:
        ledger.close()
    log.info("stopped", accepted=carrier.statistics.accepted)


def main() -> None:
    settings = load_settings(CarrierSettings)
    configure_logging("simulated_carrier", "INFO")
    try:
        asyncio.run(run(settings))
    except OSError as error:
        sys.exit(f"simulated_carrier: {error}")


if __name__ == "__main__":
    main()
