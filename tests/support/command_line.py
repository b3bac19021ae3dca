"""The command line, in this process: what it prints, and how it ends."""

from collections.abc import Callable

from typer.testing import CliRunner, Result

from app.__main__ import cli

Run = Callable[..., Result]


def run(*words: str, stdin: str = "", **settings: str) -> Result:
    return CliRunner().invoke(cli, words, input=stdin, env={name.upper(): value for name, value in settings.items()})
