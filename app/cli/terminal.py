"""Groups, options, questions and errors of one line, for all commands.

This module imports nothing slow, and each command imports what it works with when it runs. So `--help` and a typing
error are answered at once.
"""

import logging
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from app.errors import AppError, BadSettings

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from app.users.accounts import Administration

HELP = {"help_option_names": ["-h", "--help"]}

Name = Annotated[str, typer.Argument(help="The username, or the verified e-mail address. Letter case does not matter.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


class CommandLine(TyperGroup):
    """The commands. An error for the user is one line on standard error.

    The exit code is 2 for bad settings, as for wrong options. It is 1 for every other error.
    """

    def invoke(self, ctx: Any) -> Any:
        logging.getLogger("app").addHandler(logging.NullHandler())  # the error is printed below, once
        try:
            return super().invoke(ctx)
        except AppError as error:
            raise failure(str(error)) from error
        except BadSettings as error:
            raise failure(*error.args, code=2) from error


def group(help_: str) -> typer.Typer:
    return typer.Typer(help=help_, no_args_is_help=True)


def act(name: str, done: str | None, f: Callable[["Administration", "RowMapping"], Awaitable[object]]) -> None:
    """Run `f` on the account of a user. Then say that it is done, unless `f` has said so."""
    from app.cli.run import with_administration
    from app.users.service import get_user_by_name

    async def run(administration: "Administration") -> None:
        user = await administration.db.read(get_user_by_name, name)
        await f(administration, user)
        if done:
            typer.echo(f"{done} {user['username']}.")

    with_administration(run)


def failure(*messages: str, code: int = 1) -> typer.Exit:
    for message in messages:
        typer.echo(f"error: {message}", err=True)
    return typer.Exit(code)


def read_password() -> str:
    """Read a password from a prompt, or from standard input: everybody on the host can see a command's arguments.

    Windows and some editors add a carriage return and a byte order mark. Nobody can type those at a login.
    """
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")


def validate(kind: Any, **fields: object) -> Any:
    """Validate fields by a schema. Faults end the command with one line and exit code 1."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        faults = [f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise failure("; ".join(faults)) from error
