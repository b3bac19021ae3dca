"""The wheel, installed where there is no clone: it has the migrations and a command."""

import subprocess
import sys
from pathlib import Path
from sysconfig import get_path

from tests.conftest import SECRET
from tests.support.processes import ROOT, environment


def test_the_command_of_a_wheel_migrates(tmp_path: Path) -> None:
    """The libraries are those of this environment, because a test asks no package index."""
    libraries = "import sysconfig; print(sysconfig.get_path('purelib'))"
    here = tmp_path / "venv"
    outside = tmp_path / "outside"
    outside.mkdir()

    def run(*words: str | Path) -> str:
        settings = environment(database_url=f"sqlite:///{outside}/tasks.db", secret_key=SECRET, pythonpath="")
        done = subprocess.run(words, cwd=outside, env=settings, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", "--without-pip", here)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path], cwd=ROOT, check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    pip = "-m", "pip", "--python", here / "bin" / "python", "install", "--no-deps", "--no-index", "-q", "--no-compile"
    run(sys.executable, *pip, wheel)
    site = Path(run(here / "bin" / "python", "-c", libraries).strip())
    (site / "libraries.pth").write_text(get_path("purelib"))

    assert "newest migration" in run(here / "bin" / "bearer-tasks", "migrate")
    assert run(here / "bin" / "bearer-tasks", "check") == "Nothing is wrong.\n"
    assert (site / "app" / "alembic" / "env.py").exists()
