"""The command line: python -m app."""

import typer

from app import NAME
from app.cli import check, demo, keys, purge, serve, sessions, users

cli = typer.Typer(help=f"{NAME}.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for room in serve, check, purge, demo:
    cli.add_typer(room.cli)
for name, group in {"users": users.cli, "sessions": sessions.cli, "keys": keys.cli}.items():
    cli.add_typer(group, name=name)

if __name__ == "__main__":
    cli(prog_name="python -m app")
