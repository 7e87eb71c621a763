"""Databases for tests: a SQLite file each, and where it can be had a PostgreSQL database each."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

#: PostgreSQL refuses to run as root; Debian's package brings this user.
_UNPRIVILEGED = "postgres"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server: LETHE_TEST_POSTGRES_URL, or a temporary one from Debian's binaries."""
    given = os.environ.get("LETHE_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        pytest.skip("no PostgreSQL: neither LETHE_TEST_POSTGRES_URL nor /usr/lib/postgresql/*/bin")
    user = _UNPRIVILEGED if os.geteuid() == 0 else None
    if user is not None and not _exists(user):
        pytest.skip(f"no PostgreSQL: tests run as root and there is no user {user!r} to run the server")
    folder = Path(tempfile.mkdtemp(prefix="lethe-pg-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        with _running(binaries[-1], folder, user):
            yield f"postgresql+psycopg://{user or pwd.getpwuid(os.geteuid()).pw_name}@/postgres?host={folder}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(binaries: Path, folder: Path, user: str | None) -> Iterator[None]:
    data = folder / "data"

    def call(program: str, *arguments: str) -> None:
        command = [binaries / program, "-D", data, *arguments]
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL, timeout=60)

    call("initdb", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    call("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield
    finally:
        call("pg_ctl", "-w", "-m", "immediate", "stop")


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new, empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new folder' / 'lethe.db'}"
        return
    server = make_url(request.getfixturevalue("postgres_server"))
    name = f"lethe_{uuid.uuid4().hex}"
    address = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield server.set(database=name).render_as_string(hide_password=False)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
