"""A service for the supervisor's tests: ready at /health/ready, says what happens to it, slow or unable to stop on demand."""

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        not_ready = os.environ.get("NEVER_READY")
        body = (not_ready or os.environ.get("ANSWER", "ready")).encode()
        self.send_response(503 if not_ready else 200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    if os.environ.get("DIE_AT_ONCE"):
        sys.exit("no such setting: COLOUR")

    def stop(*_: object) -> None:
        print("draining", flush=True)
        if os.environ.get("DEAF"):
            return
        with Path(os.environ["STOP_ORDER"]).open("a") as order:
            order.write(f"{os.environ['NAME']}\n")
        sys.exit(int(os.environ.get("STOP_CODE", "0")))

    signal.signal(signal.SIGTERM, stop)
    if os.environ.get("SLOW_START"):
        time.sleep(float(os.environ["SLOW_START"]))
    HTTPServer(
        ("127.0.0.1", int(os.environ.get("OPS_PORT") or os.environ["CARRIER_HTTP_PORT"])), Health
    ).serve_forever()


if __name__ == "__main__":
    main()
