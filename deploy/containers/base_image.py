"""The image that all others are built from: Debian's slim one, pulled, or made here where no registry of images is reached."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from deploy.containers.docker import Docker, DockerError
from deploy.containers.engine import NoEngineError, Say
from deploy.local.prepare import SetupError, apt_install, run

SUITE = "bookworm"
PUBLISHED = "debian:12-slim"
MADE_HERE = "postrider-base:12-slim"
PULL_SECONDS = 300
PROBE_SECONDS = 60


def base_image(docker: Docker, say: Say) -> str:
    """The name of an image to build from. Raises `NoEngineError` if the engine can't run it."""
    name = _found(docker)
    if name is None:
        say(f"{PUBLISHED} can't be pulled: made with debootstrap")
        _make(docker)
        name = MADE_HERE
    try:
        docker.run("run", "--rm", "--network=none", name, "/bin/true", timeout=PROBE_SECONDS)
    except DockerError as error:
        raise NoEngineError(f"the engine starts no container: {error}") from error
    return name


def _found(docker: Docker) -> str | None:
    for name in (PUBLISHED, MADE_HERE):
        if docker.run("images", "--quiet", name).strip():
            return name
    try:
        docker.run("pull", "--quiet", PUBLISHED, timeout=PULL_SECONDS)
    except DockerError:
        return None
    return PUBLISHED


def _make(docker: Docker) -> None:
    if not shutil.which("debootstrap"):
        if not shutil.which("apt-get"):
            raise SetupError("debootstrap is missing; install it, or make debian:12-slim available")
        apt_install((("debootstrap",), ("debian-archive-keyring",)))
    with tempfile.TemporaryDirectory(prefix="postrider-base-") as directory:
        root = Path(directory) / "root"
        run("debootstrap", "--variant=minbase", SUITE, str(root), *_mirror())
        for unwanted in (
            "usr/share/doc",
            "usr/share/man",
            "usr/share/locale",
            "var/cache/apt/archives",
            "var/lib/apt/lists",
        ):
            shutil.rmtree(root / unwanted, ignore_errors=True)
        (root / "var/cache/apt/archives/partial").mkdir(parents=True)
        (root / "etc/apt/apt.conf.d/90-small").write_text(
            'APT::Install-Recommends "false";\nDPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };\n'
        )
        archive = Path(directory) / "root.tar"
        run("tar", "-C", str(root), "-cf", str(archive), "--exclude=./dev", ".")
        docker.run("import", str(archive), MADE_HERE)


def _mirror() -> list[str]:
    """Where this machine's apt gets the suite, if it does; debootstrap knows one by itself."""
    known = subprocess.run(
        ("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"),
        capture_output=True,
        text=True,
        check=False,
    )
    uris = [line.split()[1] for line in known.stdout.splitlines() if line.split()[:1] == [SUITE]]
    return uris[:1]
