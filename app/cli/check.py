"""python -m app check."""

import typer


def check() -> None:
    """Examine this installation. Print each fault with its remedy, and exit with 1 if there is one."""
    from app.cli.diagnosis import diagnose
    from app.clock import utc_now

    faults = diagnose(utc_now)
    for what, remedy in faults:
        typer.echo(f"- {what}\n  {remedy}")
    if faults:
        raise typer.Exit(1)
    typer.echo("Nothing is wrong.")
