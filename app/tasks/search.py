"""Search: the words of a task, and the tasks that have all of some words.

Words are found in Python, for tasks and for searches alike: neither database is asked what a word is, so that both
answer the same. PostgreSQL has them in a tsvector under a GIN index. On SQLite triggers keep them in an FTS5 index (see
the migration), with a token for the owner and one for public tasks beside them: what others have costs nothing.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple
from unicodedata import category, name, normalize

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

from app.auth.callers import if_live
from app.db.database import AnyConnection, AnySelect, expect_long
from app.db.upgrade import Backfill
from app.tasks.models import HAS_WORDS, Task

LONGEST: Final = 64  # characters: of a longer word, the rest does not count
MOST: Final = 2_000  # different words of a task: those behind them are not found
BLOCK: Final = 2_500  # characters that are spelled at a time: what is behind the first so many words costs nothing
# Accents, Arabic and Hebrew marks, the Arabic tatweel, and what chooses the look of an emoji.
UNCOUNTED: Final = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0898-\u089f\u08ca-\u08e1\u08e3-\u08ff\ufe00-\ufe0f]"
)
# What follows 16 characters that may be marks: to normalise a run of marks takes time by the square of its length.
MARKS: Final = re.compile(r"((?:[^\x00-\u02ff\w]|[\uff9e\uff9f]){16})(?:[^\x00-\u02ff\w]|[\uff9e\uff9f])+")
# Chinese, Japanese, and what Unicode calls South East Asian: Thai, Lao, Burmese, Khmer and their like.
UNSPACED: Final = re.compile(
    "[\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf]"
)
# Letters that Unicode does not take apart count as in CLDR's Latin-ASCII: those with a stroke or hook by their names.
LETTERS: Final = {"æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "ŋ": "n", "\u0131": "i", "ɵ": "o", "ʉ": "u"}
WITH_STROKE: Final = re.compile("LATIN SMALL LETTER (?:DOTLESS )?([A-Z]) WITH .+")
ZERO_WIDTH_SPACE: Final = "\u200b"
PREFIX: Final = 3  # characters of which SQLite has indexed beginnings, too (see the migration)
FEW: Final = 2_000  # tasks at most that SQLite reads by their ids and sorts
MANY: Final = 20_000  # tasks in a list: whether there are more of them is not asked

# On SQLite: the index, and each task's number in it. Rowids of tasks will not do: VACUUM and dumps may change them.
INDEX = table("task_words", column("rowid"), column("task_words"))
NUMBERS = table("task_numbers", column("number"), column("task_id"))
MATCHES = select(INDEX.c.rowid).where(INDEX.c.task_words.op("MATCH")(bindparam("match"))).limit(bindparam("limit"))
COUNT_MATCHES = select(func.count()).select_from(MATCHES.subquery())
VALUE = func.json_each(bindparam("values", type_=String)).table_valued("value")
NUMBER = func.json_each(bindparam("numbers", type_=String)).table_valued("value")
LACKS_ONE = select(VALUE.c.value).where(func.instr(Task.words, VALUE.c.value) == 0).correlate(Task).exists()
HAS_EACH = HAS_WORDS & ~LACKS_ONE
IS_FOUND = HAS_EACH & Task.id.in_(select(NUMBERS.c.task_id).where(NUMBERS.c.number.in_(select(NUMBER.c.value))))

# The words stand in the statement, for PostgreSQL to see how common they are: of a parameter it expects few rows. Of
# words that its statistics do not have it expects one task in 200, and would walk along a list for them: hence HITS.
HAS_LEXEMES = Task.words.op("@@")(cast(bindparam("words", type_=String, literal_execute=True), TSQUERY))
HITS = select(Task.id).where(HAS_LEXEMES).limit(FEW)


class LookUps(NamedTuple):
    """The statements that choose a plan for one of the two lists."""

    hits: AnySelect
    matches: AnySelect
    length: AnySelect


OF_OWNER = LookUps(if_live(HITS.where(Task.owner_id == bindparam("user_id"))), if_live(MATCHES), if_live(COUNT_MATCHES))
IN_PUBLIC = LookUps(HITS.where(Task.is_public), MATCHES, COUNT_MATCHES)


class SearchPlan(NamedTuple):
    """How a list finds the tasks that a search is for: by a condition and its parameters."""

    condition: ColumnElement[bool] | None
    values: dict[str, Any]
    are_few: bool = False
    """Whether they are to be found first, and then sorted."""
    by_id: bool = False
    """Whether they are to be read by their ids, whatever other index there is."""


NO_SEARCH: Final = SearchPlan(None, {})


@lru_cache(4096)
def _spell(code: int) -> str:
    """What a character is to search: letters, a word by itself, the end of a word, or nothing at all."""
    character = chr(code)
    kind = category(character)
    if kind[0] not in "LN" and kind not in {"Mn", "Mc"}:
        return "" if kind == "Cf" and character != ZERO_WIDTH_SPACE else " "  # format joins: a soft hyphen, for one
    if UNSPACED.match(character):
        return f" {character} "
    with_stroke = WITH_STROKE.fullmatch(name(character, "")) if kind == "Ll" else None
    return with_stroke[1].lower() if with_stroke else LETTERS.get(character, character)


class Spelling:
    """For `str.translate`, which asks for what it does not know by heart: all but ASCII."""

    __getitem__ = staticmethod(_spell)


SPELLING: Final = Spelling()


def split(*texts: str | None) -> list[str]:
    """The words of some texts: runs of letters, digits and marks, whatever their case, form and accents.

    Each character of a script without spaces is a word, and so is each of its marks. Texts of very many different words
    are not read to their end.
    """
    text = MARKS.sub(r"\1", " ".join(filter(None, texts)))
    folded = normalize("NFKD", text).casefold()
    composed = normalize("NFC", UNCOUNTED.sub("", folded))
    words: list[str] = []
    rest = ""
    for start in range(0, len(composed), BLOCK):
        spelled = rest + composed[start : start + BLOCK].translate(SPELLING)
        whole, _, rest = spelled.rpartition(" ")
        words += [word[:LONGEST] for word in whole.split()]
        if len(words) > MOST and len(words := list(dict.fromkeys(words))) > MOST:
            return words
    return [*words, rest[:LONGEST]] if rest else words


def index_text(title: str, description: str | None) -> str:
    """What `Task.words` holds: each different word between two spaces, so many at most."""
    return f" {' '.join(islice(dict.fromkeys(split(title, description)), MOST))} "


WITHOUT_WORDS = select(Task.id, Task.title, Task.description).where(~HAS_WORDS).order_by(Task.id)
WRITE_WORDS = update(Task).where(Task.id == bindparam("task_id")).values(words=bindparam("its_words"))


def index_batch(connection: Connection, limit: int) -> int:
    """Write down the words of some tasks that have none yet; of how many."""
    tasks = connection.execute(WITHOUT_WORDS.limit(limit).with_for_update()).all()
    words = [{"task_id": task.id, "its_words": index_text(task.title, task.description)} for task in tasks]
    if words:
        connection.execute(WRITE_WORDS, words)
    return len(words)


def has_unindexed(connection: Connection) -> bool:
    """Whether there are tasks that no search finds yet."""
    return connection.execute(WITHOUT_WORDS.limit(1)).one_or_none() is not None


BACKFILL: Final = Backfill(has_unindexed, index_batch)


def plan_search(connection: AnyConnection, q: str, owner_id: str | None) -> SearchPlan:
    """Look for an owner's tasks, or the public ones, with all words of `q`.

    The last word may be the beginning of a task's word, unless it is a character of a script without spaces.
    """
    *others, last = split(q) or [""]
    if not last:
        return NO_SEARCH
    expect_long(connection, "search")
    look_ups = OF_OWNER if owner_id else IN_PUBLIC
    is_whole = UNSPACED.match(last) is not None
    others = list(dict.fromkeys(others))
    if connection.dialect.name == "postgresql":
        lexemes = {"words": " & ".join([*(f"'{word}'" for word in others), f"'{last}'{'' if is_whole else ':*'}"])}
        return SearchPlan(HAS_LEXEMES, lexemes, are_few=len(connection.execute(look_ups.hits, lexemes).all()) < FEW)
    listed = f'"_{owner_id or "public"}"'
    terms = [listed, *(f'"{word}"' for word in others)]
    words = {"values": json.dumps([*(f" {word} " for word in others), f" {last}{' ' if is_whole else ''}"])}
    numbers = _match(connection, look_ups.matches, terms, last, is_whole=is_whole)
    if len(numbers) < FEW and _is_longer(connection, look_ups.length, listed, len(numbers) ** 2 // 4):
        return SearchPlan(IS_FOUND, words | {"numbers": json.dumps(numbers)}, by_id=True)
    return SearchPlan(HAS_EACH, words)


def _match(
    connection: AnyConnection, matches: AnySelect, terms: Sequence[str], last: str, *, is_whole: bool
) -> Sequence[int]:
    """Ask SQLite's index for tasks with all terms and with the last word, or one that begins with it.

    It answers short beginnings at once. For a longer one it first gathers all tasks that have it, whoever's they are.
    So it is asked for less: for the short one, which may be rare, and for the whole word, which may be common. The
    tasks that are found need not all have the last word.
    """

    def ask(term: str) -> Sequence[int]:
        match = {"match": " ".join([*terms, term]), "limit": FEW}
        return connection.execute(matches, match).scalars().all()

    numbers = ask(f'"{last}"' if is_whole else f'"{last[:PREFIX]}"*')
    if len(numbers) == FEW and len(last) > PREFIX:
        numbers = ask(f'"{last}"')
        if len(numbers) < FEW:
            numbers = ask(f'"{last}"*')
    return numbers


def _is_longer(connection: AnyConnection, count: AnySelect, listed: str, length: int) -> bool:
    """Whether a list is so long that to meet a page of those that are found takes longer than to read them all.

    To meet a task costs a fifth of reading one by its id: for a page of 20, lists as long as a quarter of the square of
    the number of those that are found take as long either way.
    """
    limit = min(length, MANY) + 1
    return bool(connection.execute(count, {"match": listed, "limit": limit}).scalar_one() == limit)
