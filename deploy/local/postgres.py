"""PostgreSQL on this machine: a server of our own as a child process, on 127.0.0.1 with a generated password.

The server refuses to run as root. Started by root it runs as a system user, and where that user can't reach a path of ours
(a checkout in /root), its files live below /var/lib/postrider instead.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import ClassVar

import asyncpg

from deploy import REPOSITORY
from deploy.local import postgres_binaries
from deploy.local.ports import HOST, require_free
from deploy.local.processes import Child, StartError
from deploy.local.server import LocalServer

SYSTEM_USERS = ("postgres", "postrider")
OUR_USER = "postrider"  # in the database, and on the machine if it has no `postgres`
ROOT_HOME = Path("/var/lib/postrider")

CONFIGURATION = REPOSITORY / "deploy" / "postgres" / "postgresql.conf"
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    **dict(re.findall(r"^(\w+) = (.+)$", CONFIGURATION.read_text(), re.MULTILINE)),
}


class Postgres(LocalServer):
    """The server; killed, its backends notice and end, as after a crash."""

    NAME: ClassVar = "PostgreSQL"
    STOP_SIGNAL: ClassVar = signal.SIGINT  # "fast shutdown": it cuts connections

    def __init__(self, directory: Path, *, port: int | None = None, log: Path | None = None) -> None:
        super().__init__(directory, port, log or directory / "postgres.log")

    @property
    def _password_file(self) -> Path:
        """Written when the data directory is complete: without it, an interrupted start begins afresh."""
        return self.directory / "password"

    def dsn(self, database: str = "postgres") -> str:
        password = self._password_file.read_text()
        return f"postgresql://{OUR_USER}:{password}@{HOST}:{self.port}/{database}"

    async def create_database(self, name: str) -> str:
        """Make the database if it is not there; answer its DSN."""
        connection = await asyncpg.connect(self.dsn())
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        except asyncpg.DuplicateDatabaseError:
            pass
        finally:
            await connection.close()
        return self.dsn(name)

    async def _spawn(self) -> Child:
        require_free(self.port, "PostgreSQL")
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._password_file.exists() and not (self.directory / "data" / "PG_VERSION").exists():
            raise StartError(f"the data in {data_location(self.directory)} is gone: forget the rest with `make reset`")
        programs, user = await asyncio.to_thread(programs_and_user)
        data = _data_directory(self.directory, user)
        if not self._password_file.exists():
            await self._initialise(programs, data, user)
        _require_same_version(programs, data)
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return await Child.spawn(
            (str(programs / "postgres"), "-D", str(data), "-p", str(self.port), *settings),
            log=self.log,
            directory=Path("/"),
            user=user,
            death_signal=self.STOP_SIGNAL,
        )

    async def _initialise(self, programs: Path, data: Path, user: pwd.struct_passwd | None) -> None:
        shutil.rmtree(data)
        _make_owned(data, user)
        password = secrets.token_hex(16)
        handed_over = data.with_name(f"{data.name}.password")  # initdb reads it as the system user
        _write_private(handed_over, password)
        if user:
            os.chown(handed_over, user.pw_uid, user.pw_gid)
        command = (
            str(programs / "initdb"),
            f"--pgdata={data}",
            f"--username={OUR_USER}",
            "--auth=scram-sha-256",
            f"--pwfile={handed_over}",
            "--encoding=UTF8",
            "--locale=C",
        )
        child = await Child.spawn(command, log=self.log, directory=Path("/"), user=user)
        try:
            code = await child.wait()
        finally:
            await child.kill()
            handed_over.unlink()
        if code != 0:
            raise StartError(f"initdb failed for {data}:\n{child.log_tail()}")
        _write_private(self._password_file, password)

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.dsn(), timeout=5)
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError):
            return False
        await connection.close()
        return True


def data_location(directory: Path) -> Path:
    """Where the data of a server for `directory` really is: there, or below /var/lib/postrider."""
    return (directory / "data").resolve()


def programs_and_user() -> tuple[Path, pwd.struct_passwd | None]:
    """Where the server's programs are, and as whom they run if not as we do; `StartError` if there is none of either."""
    found = postgres_binaries.installed() or postgres_binaries.embedded()
    if not found:
        raise StartError("no PostgreSQL server was found: run `make setup`")
    if os.geteuid() != 0:
        return found, None
    with _alone_in(ROOT_HOME):
        user = system_user()
        return (found if reachable(found) else _copied(found, ROOT_HOME)), user


@contextlib.contextmanager
def _alone_in(home: Path) -> Generator[None]:
    """No other process makes the user or copies the programs meanwhile: tests start several servers at once."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def system_user() -> pwd.struct_passwd:
    """The user that a server started by root runs as; made if there is none."""
    for name in SYSTEM_USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    made = subprocess.run(
        ("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", OUR_USER),
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise StartError(f"PostgreSQL does not run as root, and no user for it could be made: {made.stderr.strip()}")
    return pwd.getpwnam(OUR_USER)


def _copied(found: Path, home: Path) -> Path:
    """The programs that a Python package brings, where users other than root can reach them."""
    package = found.parents[1]  # with the shared libraries that it brings in a directory beside it
    copied = home / f"server-{postgres_binaries.major_version(found)}"
    if not copied.exists():
        partial = copied.with_suffix(".partial")
        for part in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(part, partial / part.name, symlinks=True, dirs_exist_ok=True)
        partial.rename(copied)
    return copied / package.name / found.relative_to(package)


def _data_directory(directory: Path, user: pwd.struct_passwd | None) -> Path:
    """The data directory, owned by the user that the server runs as."""
    link = directory / "data"
    if user and not link.exists() and not reachable(directory):
        digest = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]
        elsewhere = ROOT_HOME / f"data-{digest}"
        elsewhere.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)  # of an interrupted start, whose data are gone
        link.symlink_to(elsewhere)
    _make_owned(link.resolve(), user)
    return link.resolve()


def _make_owned(data: Path, user: pwd.struct_passwd | None) -> None:
    data.mkdir(mode=0o700, exist_ok=True)
    data.chmod(0o700)
    if user:
        os.chown(data, user.pw_uid, user.pw_gid)


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def reachable(path: Path) -> bool:
    """True if any user may pass through every directory down to `path`."""
    resolved = path.resolve()
    return all(part.stat().st_mode & 0o001 for part in (resolved, *resolved.parents))


def _require_same_version(programs: Path, data: Path) -> None:
    made_by = int((data / "PG_VERSION").read_text())
    here = postgres_binaries.major_version(programs)
    if made_by != here:
        raise StartError(
            f"the data in {data} was made by PostgreSQL {made_by}, but the server here is {here}: "
            f"install PostgreSQL {made_by}, or forget the data with `make reset`"
        )
