"""python -m app keys: what signs the tokens, and how it is changed without logging anyone out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from app.auth.keys import add_key_pair, load_tokens, new_secret, use_key_pair
from app.cli.run import failure, group
from app.config import load_settings

LATER = "Restart every process: it is published then. Five minutes later have it sign: python -m app keys use {kid}"

cli = group("See and change what signs the tokens.")


@cli.command("list")
def list_() -> None:
    """List the keys: id, algorithm, and what each signs."""
    settings = load_settings()
    with _told():
        for key in load_tokens(settings).uses:
            typer.echo(f"{key.id}  {key.algorithm}  {'signs ' + ', '.join(key.signs) if key.signs else 'verifies'}")


@cli.command()
def new() -> None:
    """Add a key pair to the file of JWT_PRIVATE_KEY_FILE; without one, print a new secret."""
    path = load_settings().jwt_private_key_file
    if path is None:
        typer.echo(new_secret())
        typer.echo("This is a SECRET_KEY. Give every process the present one as SECRET_KEY_PREVIOUS with it.", err=True)
        return
    with _told():
        is_first = not path.exists()
        kid = add_key_pair(path)
    typer.echo(kid)
    typer.echo("Restart every process: it signs then." if is_first else LATER.format(kid=kid), err=True)


@cli.command(context_settings={"ignore_unknown_options": True})  # one id in 64 begins with a dash
def use(kid: Annotated[str, typer.Argument(help="Its id, as keys list has it.")]) -> None:
    """Have a key pair of the file sign; the others still verify."""
    path = load_settings().jwt_private_key_file
    if path is None:
        raise failure("JWT_PRIVATE_KEY_FILE is not set")
    with _told():
        is_there = use_key_pair(path, kid)
    if not is_there:
        raise failure(f"no private key in {path} has that id")
    typer.echo("It signs: restart every process.", err=True)


@contextmanager
def _told() -> Iterator[None]:
    """End the command with one line and exit code 1 where a file of keys is damaged, or cannot be read or written."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise failure(str(error)) from error
