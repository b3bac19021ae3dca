"""python -m app demo."""

import typer

cli = typer.Typer()
