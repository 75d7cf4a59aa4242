"""The health check of a container: `python -m libs.service_kit.health_check PORT` succeeds if the service there is ready.

It says on its standard output what the service answered, which `docker inspect` shows. Standard library only, and little of it: it
starts every few seconds beside every service.
"""

import http.client
import sys

TIMEOUT_SECONDS = 3.0


def check(port: int) -> tuple[bool, str]:
    """Whether the service on this machine's `port` is ready, and its words or why there are none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health/ready")
        response = connection.getresponse()
        return response.status == 200, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return False, f"{type(error).__name__}: {error}"
    finally:
        connection.close()


if __name__ == "__main__":
    ready, words = check(int(sys.argv[1]))
    sys.stdout.write(words + "\n")
    sys.exit(not ready)
