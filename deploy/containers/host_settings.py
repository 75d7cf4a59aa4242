"""How this machine reaches its registries, as secrets of an image build: they are there during a step and in no layer.

CA certificates, apt's proxy, pip's index, Maven's settings. On a machine without settings of its own this is the CA bundle alone.
"""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
JAVA_TRUST_STORE = Path("/etc/ssl/certs/java/cacerts")
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
PROXIES = ("http_proxy", "https_proxy", "no_proxy")  # build arguments that every engine knows; no layer keeps them


@contextmanager
def build_arguments() -> Generator[list[str]]:
    """Words for `docker build`, valid until the end of the block."""
    with TemporaryDirectory(prefix="postrider-build-") as directory:
        written = Path(directory)
        (written / "pip.conf").write_text(_pip_settings())
        (written / "apt.conf").write_text(_apt_settings())
        secrets = {
            "ca-certificates.crt": CA_BUNDLE,
            "java-cacerts": JAVA_TRUST_STORE,
            "settings.xml": Path.home() / ".m2/settings.xml",
            "pip.conf": written / "pip.conf",
            "apt.conf": written / "apt.conf",
        }
        given = [f"--secret=id={name},src={file}" for name, file in secrets.items() if file.exists()]
        proxies = [f"--build-arg={name}" for name in PROXIES if os.environ.get(name)]
        yield [*given, *proxies]


def _pip_settings() -> str:
    listed = _output(sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check")
    return pip_settings(listed)


def pip_settings(listed: str) -> str:
    """A pip.conf with what matters elsewhere of `pip config list`: a setting a line, the later ones winning."""
    chosen: dict[str, str] = {}
    for line in listed.splitlines():
        name, found, value = line.partition("=")
        option = name.rpartition(".")[2]
        if found and option in PIP_SETTINGS:
            chosen[option] = value.strip().strip("'\"").replace("\\n", "\n    ")
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in chosen.items())


def _apt_settings() -> str:
    return apt_settings(_output("apt-config", "dump"))


def apt_settings(dumped: str) -> str:
    """The proxies among the lines of `apt-config dump`."""
    return "".join(
        f"{line}\n"
        for line in dumped.splitlines()
        if line.startswith(("Acquire::http::", "Acquire::https::")) and "roxy" in line
    )


def _output(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
