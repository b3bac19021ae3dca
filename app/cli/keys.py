"""python -m app keys: the keys that sign the tokens. They can be changed without logging anyone out."""

from typing import Annotated

import typer

from app.cli.terminal import AsJSON, failure, group

cli = group("List and change the keys that sign the tokens.")


@cli.command("list")
def list_(as_json: AsJSON = False) -> None:
    """List the keys: id, algorithm, and what each key signs."""
    from pydantic_core import to_json

    from app.auth.keys import load_tokens
    from app.config import read_settings

    for key in load_tokens(read_settings()).uses:
        if as_json:
            typer.echo(to_json(key._asdict()).decode())
        else:
            typer.echo(f"{key.id}  {key.algorithm}  {'signs ' + ', '.join(key.signs) if key.signs else 'verifies'}")


@cli.command()
def new() -> None:
    """Add a key pair to the file that JWT_PRIVATE_KEY_FILE names. Without that setting, print a new secret."""
    from app.auth.keys import add_key_pair, new_secret
    from app.config import read_settings

    path = read_settings().jwt_private_key_file
    if path is None:
        typer.echo(new_secret())
        typer.echo("Use it as SECRET_KEY, and the present SECRET_KEY as SECRET_KEY_PREVIOUS, everywhere.", err=True)
        return
    is_first = not path.exists()
    kid = add_key_pair(path)
    typer.echo(kid)
    advice = f"Restart every process to publish the key. Five minutes later, let it sign: python -m app keys use {kid}"
    typer.echo("Restart every process: the key signs then." if is_first else advice, err=True)


# One id in 64 begins with a dash. With -h as an option, such an id with an h in it would ask for help.
@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
def use(kid: Annotated[str, typer.Argument(help="The key's id, as `keys list` prints it.")]) -> None:
    """Let a key pair of the file sign. The others still verify."""
    from app.auth.keys import use_key_pair
    from app.config import read_settings

    path = read_settings().jwt_private_key_file
    if path is None:
        raise failure("JWT_PRIVATE_KEY_FILE is not set")
    if not use_key_pair(path, kid):
        raise failure(f"no private key in {path} has that id")
    typer.echo("Restart every process: the key signs then.", err=True)
