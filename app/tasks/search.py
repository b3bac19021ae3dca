"""Search: the words of a task, and the tasks that have all of some words.

Words are found in Python, for tasks and for searches alike: neither database is asked what a word is, so that both
answer the same. PostgreSQL has them in a tsvector under a GIN index. On SQLite triggers keep them in an FTS5 index (see
the migration), with a token for the owner and one for public tasks beside them: what others have costs nothing.
"""

import json
import re
from functools import lru_cache
from typing import Any, Final, NamedTuple
from unicodedata import category, normalize

from sqlalchemy import (
    ColumnElement,
    Connection,
    String,
    bindparam,
    cast,
    column,
    func,
    select,
    table,
    update,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from app.database import expect_long
from app.tasks.models import HAS_WORDS, Task

LONGEST: Final = 64  # characters: of a longer word, the rest does not count
ACCENTS: Final = re.compile("[\u0300-\u036f\ufe00-\ufe0f]")  # and what chooses the look of an emoji
# What follows 16 characters that may be marks: to normalise a run of marks takes time by the square of its length.
MARKS: Final = re.compile(r"((?:[^\x00-\u02ff\w]|[\uff9e\uff9f]){16})(?:[^\x00-\u02ff\w]|[\uff9e\uff9f])+")
UNSPACED: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")  # Chinese and Japanese
FEW: Final = 2_000  # tasks at most that SQLite reads by their ids and sorts
MANY: Final = 20_000  # tasks in a list: whether there are more of them is not asked

# On SQLite: the index, and each task's number in it. Rowids of tasks will not do: VACUUM and dumps may change them.
INDEX = table("task_words", column("rowid"), column("task_words"))
NUMBERS = table("task_numbers", column("number"), column("task_id"))
MATCHES = select(INDEX.c.rowid).where(INDEX.c.task_words.op("MATCH")(bindparam("match"))).limit(bindparam("limit"))
COUNT = select(func.count()).select_from(MATCHES.subquery())
VALUE = func.json_each(bindparam("values", type_=String)).table_valued("value")
IS_FOUND = Task.id.in_(select(NUMBERS.c.task_id).where(NUMBERS.c.number.in_(select(VALUE.c.value))))
LACKS_ONE = select(VALUE.c.value).where(func.instr(Task.words, VALUE.c.value) == 0).correlate(Task).exists()

# The words stand in the statement, for PostgreSQL to see how common they are: of a parameter it expects few rows. Of
# words that its statistics do not have it expects one task in 200, and would walk along a list for them: hence HITS.
HAS_LEXEMES = Task.words.op("@@")(cast(bindparam("words", type_=String, literal_execute=True), TSQUERY))
HITS = select(Task.id).where(HAS_LEXEMES).limit(FEW)
HITS_OF_OWNER, HITS_IN_PUBLIC = HITS.where(Task.owner_id == bindparam("user_id")), HITS.where(Task.is_public)


class Found(NamedTuple):
    """The tasks that a search is for: a condition, and its parameters."""

    condition: ColumnElement[bool]
    values: dict[str, Any]
    are_few: bool = False
    """Whether they are to be found first, and then sorted."""
    by_id: bool = False
    """Whether they are to be read by their ids, whatever other index there is."""


@lru_cache(4096)
def _spell(code: int) -> str:
    """What a character is to search: itself, a word by itself, or none of one."""
    character = chr(code)
    if category(character) not in {"Mn", "Mc"} and category(character)[0] not in "LN":
        return " "
    return f" {character} " if UNSPACED.match(character) else character


class Spelling:
    """For `str.translate`, which asks for what it does not know by heart: all but ASCII."""

    __getitem__ = staticmethod(_spell)


SPELLING: Final = Spelling()


def words_of(*texts: str | None) -> list[str]:
    """The different words of some texts: runs of letters, digits and marks, whatever their case, form and accents.

    Each character of Chinese and Japanese, which have no spaces, is a word by itself.
    """
    text = MARKS.sub(r"\1", " ".join(filter(None, texts)))
    folded = normalize("NFKD", text).casefold()
    spelled = normalize("NFC", ACCENTS.sub("", folded)).translate(SPELLING)
    return list(dict.fromkeys(word[:LONGEST] for word in spelled.split()))


def spell_words(title: str, description: str | None) -> str:
    """What `Task.words` holds: each word between two spaces."""
    return f" {' '.join(words_of(title, description))} "


WITHOUT_WORDS = select(Task.id, Task.title, Task.description).where(~HAS_WORDS).order_by(Task.id)
WRITE_WORDS = update(Task).where(Task.id == bindparam("task_id")).values(words=bindparam("its_words"))


def write_words(connection: Connection, limit: int) -> int:
    """Write down the words of some tasks that have none yet; of how many."""
    tasks = connection.execute(WITHOUT_WORDS.limit(limit).with_for_update()).all()
    words = [{"task_id": task.id, "its_words": spell_words(task.title, task.description)} for task in tasks]
    if words:
        connection.execute(WRITE_WORDS, words)
    return len(words)


def lacks_words(connection: Connection) -> bool:
    """Whether there are tasks that no search finds yet."""
    return connection.execute(WITHOUT_WORDS.limit(1)).one_or_none() is not None


def find(connection: Connection, q: str, owner_id: str | None) -> Found | None:
    """Look for an owner's tasks, or the public ones, with all words of `q`; None where it has none."""
    words = words_of(q)
    if not words:
        return None
    expect_long(connection, "search")
    if connection.dialect.name == "postgresql":
        lexemes = {"words": " & ".join(f"'{word}'" for word in words)}
        hits = (HITS_OF_OWNER, lexemes | {"user_id": owner_id}) if owner_id else (HITS_IN_PUBLIC, lexemes)
        return Found(HAS_LEXEMES, lexemes, are_few=len(connection.execute(*hits).all()) < FEW)
    listed = f'"_{owner_id or "public"}"'
    match = {"match": " ".join([listed, *(f'"{word}"' for word in words)]), "limit": FEW}
    numbers = connection.execute(MATCHES, match).scalars().all()
    if len(numbers) < FEW and _is_longer(connection, listed, len(numbers) ** 2 // 4):
        return Found(IS_FOUND, {"values": json.dumps(numbers)}, by_id=True)
    return Found(HAS_WORDS & ~LACKS_ONE, {"values": json.dumps([f" {word} " for word in words])})


def _is_longer(connection: Connection, listed: str, length: int) -> bool:
    """Whether a list is so long that to meet a page of those that are found takes longer than to read them all.

    To meet a task costs a fifth of reading one by its id: for a page of 20, lists as long as a quarter of the square of
    the number of those that are found take as long either way.
    """
    limit = min(length, MANY) + 1
    return connection.execute(COUNT, {"match": listed, "limit": limit}).scalar_one() == limit
