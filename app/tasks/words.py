"""The words of a text, as searches know them.

Python finds the words, for tasks and for searches alike. Neither database is asked what a word is, so that both answer
the same.
"""

import re
from functools import lru_cache
from itertools import islice
from typing import Final
from unicodedata import category, name, normalize

MAX_WORD: Final = 64  # characters: the rest of a longer word does not count
MAX_WORDS: Final = 2_000  # different words of a task: the words after them are not found
BLOCK: Final = 2_500  # characters that are split at a time: text after the last word that counts costs nothing
# Accents, Arabic and Hebrew marks, the Arabic tatweel, and the characters that choose the look of an emoji.
IGNORED_MARKS: Final = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0898-\u089f\u08ca-\u08e1\u08e3-\u08ff\ufe00-\ufe0f]"
)
# A run of marks is cut after 16 of them: the time to normalize a run grows with the square of its length.
LONG_RUN_OF_MARKS: Final = re.compile(r"((?:[^\x00-\u02ff\w]|[\uff9e\uff9f]){16})(?:[^\x00-\u02ff\w]|[\uff9e\uff9f])+")
# Chinese, Japanese, and the scripts that Unicode calls South East Asian: Thai, Lao, Burmese, Khmer and others.
UNSPACED: Final = re.compile(
    "[\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf]"
)
# Letters that Unicode does not decompose, as CLDR's Latin-ASCII has them. Names tell those with a stroke or a hook.
LETTERS: Final = {"æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "ŋ": "n", "\u0131": "i", "ɵ": "o", "ʉ": "u"}
WITH_STROKE: Final = re.compile("LATIN SMALL LETTER (?:DOTLESS )?([A-Z]) WITH .+")
ZERO_WIDTH_SPACE: Final = "\u200b"


def index_text(title: str, description: str | None) -> str:
    """Make the text of `Task.words`: each different word between two spaces."""
    return f" {' '.join(islice(dict.fromkeys(split_words(title, description)), MAX_WORDS))} "


def split_words(*texts: str | None) -> list[str]:
    """Find the words of some texts: runs of letters, digits and marks, whatever their case, form and accents.

    Each character of a script without spaces is a word, and so is each of its marks. A text of very many different
    words is not read to its end.
    """
    text = LONG_RUN_OF_MARKS.sub(r"\1", " ".join(filter(None, texts)))
    folded = normalize("NFKD", text).casefold()
    composed = normalize("NFC", IGNORED_MARKS.sub("", folded))
    words: list[str] = []
    rest = ""
    for start in range(0, len(composed), BLOCK):
        tokens = rest + composed[start : start + BLOCK].translate(TOKENS)
        whole, _, rest = tokens.rpartition(" ")
        words += [word[:MAX_WORD] for word in whole.split()]
        if len(words) > MAX_WORDS and len(words := list(dict.fromkeys(words))) > MAX_WORDS:
            return words
    return [*words, rest[:MAX_WORD]] if rest else words


@lru_cache(4096)
def _token_for(code: int) -> str:
    """Say what a character is in a search: letters, a word of its own, the end of a word, or nothing."""
    character = chr(code)
    kind = category(character)
    if kind[0] not in "LN" and kind not in {"Mn", "Mc"}:
        return "" if kind == "Cf" and character != ZERO_WIDTH_SPACE else " "  # format characters join, as a soft hyphen
    if UNSPACED.match(character):
        return f" {character} "
    with_stroke = WITH_STROKE.fullmatch(name(character, "")) if kind == "Ll" else None
    return with_stroke[1].lower() if with_stroke else LETTERS.get(character, character)


class Tokens:
    """A table for `str.translate`."""

    __getitem__ = staticmethod(_token_for)


TOKENS: Final = Tokens()
