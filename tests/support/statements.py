"""The statements that the service runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, event


@contextmanager
def after_each_statement(do: Callable[[str], None]) -> Iterator[None]:
    """Call `do` with the text of each statement that the service has run."""

    def listener(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        do(statement)

    event.listen(Engine, "after_cursor_execute", listener)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", listener)
