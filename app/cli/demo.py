"""python -m app demo."""

import secrets
from time import monotonic
from typing import Annotated

import typer


def demo(
    users: Annotated[int, typer.Option(min=1, max=1_000_000, help="The number of users to make.")] = 10,
    tasks: Annotated[int, typer.Option(min=0, help="The number of tasks to share out among them.")] = 1_000,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask if the database has other accounts.")] = False,
) -> None:
    """Make users and tasks to look at. All users get one password, which is printed and stored nowhere else."""
    from app.cli.demo_data import fill, has_other_users
    from app.cli.run import with_database
    from app.config import read_settings

    settings = read_settings()
    if not yes and with_database(settings, lambda database: database.read(has_other_users)):
        typer.confirm("The database has other accounts. Add users with one printed password?", abort=True)
    password, tag = secrets.token_urlsafe(12), secrets.token_hex(2)
    typer.echo(f"The users, demo-{tag}-1 and so on, log in with:")
    typer.echo(f"  curl {settings.public_url}/auth/token -F username=demo-{tag}-1 -F password={password}")
    began = monotonic()
    with_database(settings, lambda database: fill(database, password, tag, users, tasks))
    rate = (users + tasks) / (monotonic() - began)
    typer.echo(f"Made {users:,} users and {tasks:,} tasks: {rate:,.0f} rows a second.")
