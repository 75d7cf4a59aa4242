"""`make test-compose`: builds the images, starts everything with compose, sends SMS, kills a container, takes it all down.

Run on a machine with nothing but apt and its registries it installs and starts an engine of its own (deploy/containers/engine.py).
With SKIP_WITHOUT_ENGINE=1 a machine that can't run containers passes, and says why in one line.
"""

import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.containers import base_image, images
from deploy.containers.docker import Docker, DockerError
from deploy.containers.engine import NoEngineError, Say, engine
from deploy.local.prepare import SetupError
from tests.compose.api import Api
from tests.compose.project import Project

MESSAGES = 100
CLIENTS = 10
DELIVERED_WITHIN_SECONDS = 60.0
BACK_WITHIN_SECONDS = 60.0
VERSION = "test"


def end(_number: int, _frame: object) -> None:
    sys.exit("terminated")  # an exception, so that what was started is stopped


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    started = time.monotonic()

    def say(words: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {words}", flush=True)

    try:
        with engine(say) as docker:
            images.build(docker, base_image.base_image(docker, say), VERSION, say)
            with running(docker, say) as project:
                exercise(project, say)
    except NoEngineError as error:
        words = f"make test-compose can't run here: {error}"
        if os.environ.get("SKIP_WITHOUT_ENGINE"):
            print(f"SKIPPED: {words}")
            return
        sys.exit(words)
    except (AssertionError, DockerError, SetupError) as error:
        sys.exit(f"FAILED: {error}")
    say("taken down; all is well")


@contextlib.contextmanager
def running(docker: Docker, say: Say) -> Generator[Project]:
    """The stack with the profile `demo`, healthy; nothing of it is left afterwards."""
    with TemporaryDirectory(prefix="postrider-compose-") as directory:
        project = Project.prepare(docker, Path(directory), VERSION)
        try:
            project.up()
            project.wait_until_healthy()
            say(f"healthy: {', '.join(sorted(c.service for c in project.containers()))}")
            yield project
        except BaseException:
            with contextlib.suppress(DockerError):
                print(project.logs(), file=sys.stderr)
            raise
        finally:
            project.down()


def exercise(project: Project, say: Say) -> None:
    project.require_contained()
    api = Api(project.url, project.api_key)
    for client in range(1, CLIENTS + 1):
        api.put_client(client, f"+2547110000{client:02}")
    sent = send(api, MESSAGES, "first", say)
    for service in ("dispatcher", "resolver"):
        killed = project.crash(service)
        project.wait_until_back(killed, BACK_WITHIN_SECONDS)
        say(f"{service} killed (SIGKILL), and back")
        sent += send(api, 1, f"after-{service}", say)
    require_once(sent, project.carried())
    say("the carrier had each of them once")
    assert "There are no dead letters." in project.command("deploy.dead_letters")
    assert "equal" in project.command("services.projection.rebuild", "--check")
    say("no dead letters, and the outbox is equal to its journal")
    project.stop()
    say("stopped, drained: every container ended in order")


def send(api: Api, count: int, name: str, say: Say) -> list[str]:
    """Send so many messages and see every one delivered; their texts."""
    started = time.monotonic()
    texts = [f"Message {name} {number}" for number in range(count)]
    waiting = {api.send(number % CLIENTS + 1, text, f"{name}-{number}") for number, text in enumerate(texts)}
    assert len(waiting) == count, f"{count} requests made {len(waiting)} messages"
    while waiting:
        waiting = {message for message in waiting if api.status(message) != "delivered"}
        if time.monotonic() - started > DELIVERED_WITHIN_SECONDS:
            states = {message: api.status(message) for message in waiting}
            raise AssertionError(f"not delivered within {DELIVERED_WITHIN_SECONDS:.0f} s: {states}")
        time.sleep(0.1)
    say(f"{count} SMS delivered in {time.monotonic() - started:.1f} s")
    return texts


def require_once(sent: list[str], carried: list[str]) -> None:
    """`AssertionError` if the carrier had a text not at all, or more than once, or one that nobody sent."""
    difference = Counter(carried)
    difference.subtract(sent)
    wrong = {text: count for text, count in difference.items() if count}
    assert not wrong, f"the carrier had so many more or fewer than one of these: {wrong}"


if __name__ == "__main__":
    main()
