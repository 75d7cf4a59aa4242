"""`make images`: builds what docker-compose.yml names, with this machine's way to its registries.

`docker compose build` does the same where the engine reaches the registries without settings.
"""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from deploy.containers import docker, environment, host_settings
from deploy.containers.base_image import base_image
from deploy.containers.docker import Docker, DockerError
from deploy.containers.engine import NoEngineError, Say
from deploy.local.prepare import SetupError

NAMES = ("postgres", "services", "kafka")
BUILD_SECONDS = 900


def build(engine: Docker, base: str, version: str, say: Say) -> None:
    """Build `postrider-<name>:<version>` for every name. Raises `DockerError`."""
    with host_settings.build_arguments() as settings:
        for name in NAMES:
            started = time.monotonic()
            engine.run(
                "build",
                "--progress=plain",
                "--network=host",  # an engine's own network may lead to no registry
                f"--build-arg=BASE_IMAGE={base}",
                f"--file=deploy/images/{name}/Dockerfile",
                f"--tag=postrider-{name}:{version}",
                *settings,
                ".",
                timeout=BUILD_SECONDS,
            )
            say(f"postrider-{name}:{version} ({time.monotonic() - started:.0f} s)")


def version(given: Mapping[str, str] = os.environ, file: Path = environment.ENVIRONMENT) -> str:
    """The images' tag, as compose will look for it: from the environment, else from `.env`."""
    told = environment.read(file) if file.exists() else {}
    return given.get("POSTRIDER_VERSION") or told.get("POSTRIDER_VERSION") or "local"


def main() -> None:
    engine = docker.client({})
    if engine is None:
        sys.exit("Missing: docker with BuildKit (23 or newer, or 20.10) and compose")
    try:
        build(engine, base_image(engine, print), version(), print)
    except (DockerError, NoEngineError, SetupError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
