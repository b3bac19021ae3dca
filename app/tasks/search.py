"""Search: the tasks that have all of some words.

PostgreSQL has the words of a task in a tsvector under a GIN index. On SQLite, triggers keep them in an FTS5 index (see
`triggers`), beside a token for the owner and one for public tasks, so that the tasks of others cost nothing.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, String, bindparam, cast, column, func, select, table, update
from sqlalchemy.dialects.postgresql import TSQUERY

from app.auth.callers import if_live
from app.db.database import AnyConnection, AnySelect, expect_long
from app.db.migrations import Backfill
from app.tasks.models import HAS_WORDS, Task
from app.tasks.words import UNSPACED, index_text, split_words

PREFIX: Final = 3  # SQLite has indexed the beginnings of words up to so many characters (see the migration)
MAX_SORTED: Final = 2_000  # tasks that a search finds first and sorts then, rather than meet them along the list
MAX_COUNTED: Final = 20_000  # tasks of a list: more are not counted

# On SQLite: the index, and each task's number in it. Rowids of tasks will not do: VACUUM and dumps may change them.
INDEX = table("task_words", column("rowid"), column("task_words"))
NUMBERS = table("task_numbers", column("number"), column("task_id"))
VALUE = func.json_each(bindparam("values", type_=String)).table_valued("value")
NUMBER = func.json_each(bindparam("numbers", type_=String)).table_valued("value")
LACKS_ONE = select(VALUE.c.value).where(func.instr(Task.words, VALUE.c.value) == 0).correlate(Task).exists()
HAS_EACH = HAS_WORDS & ~LACKS_ONE
IS_FOUND = HAS_EACH & Task.id.in_(select(NUMBERS.c.task_id).where(NUMBERS.c.number.in_(select(NUMBER.c.value))))
# On PostgreSQL: the words stand in the statement, so that the planner sees how common they are. For a parameter it
# would expect few rows. For words that its statistics lack it expects one task in 200, and would walk along a list to
# find them. Therefore the search looks first how many tasks there are.
HAS_LEXEMES = Task.words.op("@@")(cast(bindparam("words", type_=String, literal_execute=True), TSQUERY))

SELECT_NUMBERS = (
    select(INDEX.c.rowid).where(INDEX.c.task_words.op("MATCH")(bindparam("match"))).limit(bindparam("limit"))
)
COUNT_NUMBERS = select(func.count()).select_from(SELECT_NUMBERS.subquery())
SELECT_IDS = select(Task.id).where(HAS_LEXEMES).limit(MAX_SORTED)


class LookUps(NamedTuple):
    """The statements that look into the index of words before a list is read."""

    ids: AnySelect
    numbers: AnySelect
    length: AnySelect


OWN_LOOK_UPS = LookUps(
    if_live(SELECT_IDS.where(Task.owner_id == bindparam("user_id"))), if_live(SELECT_NUMBERS), if_live(COUNT_NUMBERS)
)
PUBLIC_LOOK_UPS = LookUps(SELECT_IDS.where(Task.is_public), SELECT_NUMBERS, COUNT_NUMBERS)


class SearchPlan(NamedTuple):
    """How a list finds the tasks of a search: a condition, its parameters, and what the planners must not see."""

    condition: ColumnElement[bool] | None
    values: dict[str, Any]
    avoid_order_index: bool = False
    """Whether to find the tasks first, and then to sort them."""
    by_id: bool = False
    """Whether to read the tasks by their ids, and to use no other index."""


NO_SEARCH: Final = SearchPlan(None, {})

SELECT_UNINDEXED = select(Task.id, Task.title, Task.description).where(~HAS_WORDS).order_by(Task.id)
WRITE_WORDS = update(Task).where(Task.id == bindparam("task_id")).values(words=bindparam("its_words"))


def plan_search(connection: AnyConnection, q: str, owner_id: str | None) -> SearchPlan:
    """Plan how to find an owner's tasks, or the public ones, that have all words of `q`.

    The last word may be the beginning of a task's word, unless it is a character of a script without spaces.
    """
    *others, last = split_words(q) or [""]
    if not last:
        return NO_SEARCH
    expect_long(connection, "search")
    look_ups = OWN_LOOK_UPS if owner_id else PUBLIC_LOOK_UPS
    others = list(dict.fromkeys(others))
    is_whole = UNSPACED.match(last) is not None
    if connection.dialect.name == "postgresql":
        lexemes = {"words": " & ".join([*(f"'{word}'" for word in others), f"'{last}'{'' if is_whole else ':*'}"])}
        return SearchPlan(
            HAS_LEXEMES,
            lexemes,
            avoid_order_index=len(connection.execute(look_ups.ids, lexemes).all()) < MAX_SORTED,
        )
    listed = f'"_{owner_id or "public"}"'
    terms = [listed, *(f'"{word}"' for word in others)]
    values = {"values": json.dumps([*(f" {word} " for word in others), f" {last}{' ' if is_whole else ''}"])}
    numbers = _match(connection, look_ups, terms, last, is_whole=is_whole)
    if len(numbers) < MAX_SORTED and _is_longer(connection, look_ups, listed, len(numbers) ** 2 // 4):
        return SearchPlan(IS_FOUND, values | {"numbers": json.dumps(numbers)}, by_id=True)
    return SearchPlan(HAS_EACH, values)


def has_unindexed(connection: Connection) -> bool:
    """Whether there are tasks that no search finds yet."""
    return connection.execute(SELECT_UNINDEXED.limit(1)).one_or_none() is not None


def index_batch(connection: Connection, limit: int) -> int:
    """Write the words of some tasks that have none yet. Return the number of tasks."""
    tasks = connection.execute(SELECT_UNINDEXED.limit(limit).with_for_update()).all()
    words = [{"task_id": task.id, "its_words": index_text(task.title, task.description)} for task in tasks]
    if words:
        connection.execute(WRITE_WORDS, words)
    return len(words)


BACKFILL: Final = Backfill(has_unindexed, index_batch)


def _match(
    connection: AnyConnection, look_ups: LookUps, terms: Sequence[str], last: str, *, is_whole: bool
) -> Sequence[int]:
    """Ask SQLite's index for tasks with all terms and with the last word, or a word that begins with it.

    The index answers short beginnings at once. For a longer one it first gathers the tasks of all users that have it.
    So this asks for less: for the short beginning, which may be rare, and for the whole word, which may be common. Not
    all of the tasks that it finds need have the last word.
    """

    def ask(term: str) -> Sequence[int]:
        match = {"match": " ".join([*terms, term]), "limit": MAX_SORTED}
        return connection.execute(look_ups.numbers, match).scalars().all()

    numbers = ask(f'"{last}"' if is_whole else f'"{last[:PREFIX]}"*')
    if len(numbers) == MAX_SORTED and len(last) > PREFIX:
        numbers = ask(f'"{last}"')
        if len(numbers) < MAX_SORTED:
            numbers = ask(f'"{last}"*')
    return numbers


def _is_longer(connection: AnyConnection, look_ups: LookUps, listed: str, length: int) -> bool:
    """Whether a list is so long that to fill a page along it takes longer than to read all found tasks by their ids.

    To pass a task of the list costs a fifth of reading one by its id. For a page of 20, both ways take as long where
    the list is as long as a quarter of the square of the number of found tasks.
    """
    values = {"match": listed, "limit": min(length, MAX_COUNTED) + 1}
    return bool(connection.execute(look_ups.length, values).scalar_one() == values["limit"])
