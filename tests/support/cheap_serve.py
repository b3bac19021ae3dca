"""`python -m app`, whose hashes cost next to nothing. Workers import this module too."""

from functools import partial

from app import main
from app.__main__ import cli
from tests.support.cheap import COST

vars(main)["create_app"] = partial(main.create_app, password_cost=COST)

if __name__ == "__main__":
    cli()
