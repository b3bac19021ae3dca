"""The command line: python -m app."""

import signal

interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the process without a word

from typing import Annotated

import typer

from app import NAME, __version__
from app.cli import backup, keys, mail, maintenance, serve, sessions, tokens, users
from app.cli.terminal import HELP, CommandLine

signal.signal(signal.SIGINT, interrupt)

cli = typer.Typer(
    cls=CommandLine,
    help=f"{NAME}, a task service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP,
)
for command in (
    *(serve.serve, maintenance.migrate, maintenance.check, mail.mail_test, maintenance.purge),
    *(backup.backup, backup.restore, maintenance.demo),
):
    cli.command()(command)
for name, group in {"users": users.cli, "sessions": sessions.cli, "tokens": tokens.cli, "keys": keys.cli}.items():
    cli.add_typer(group, name=name)


def show_version(*, is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(__version__)
        raise typer.Exit


@cli.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=show_version, help="Show the version.")] = False,
) -> None:
    pass


if __name__ == "__main__":
    cli(prog_name="python -m app")
