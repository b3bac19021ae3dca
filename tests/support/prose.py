"""The sentences of a file that people read, and the rules of plain English that a program can check."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

RELATIVE = re.compile(
    r"[\W_]*(who|whom|whose|what|which|where|whoever|whomever|whatever|whichever|wherever)\b", re.IGNORECASE
)
PHRASES = re.compile(
    r"\b(by (it|them)sel(f|ves)|anew|meanwhile|as it is|tak(e|es|ing) (\w+ ){1,3}along)\b", re.IGNORECASE
)
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')*]*\s+|;\s+")
PART_END = re.compile(r"\n\s*\n|\n\s*(?=[-*#] |\d+\. )|\|")  # of a paragraph, an item, a cell
QUOTED = re.compile(r"``.+?``|`[^`]+`|\"[^\"\n]+\"|“[^”]+”")
CODE_BLOCK = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
DIRECTIVE = re.compile(r"(noqa|type: ignore|pragma: no cover)[\w:, \[\]-]*?(# |- |$)")
NO_COMMENT = re.compile(r"^[^#\n].*$|^# ", re.MULTILINE)


def faulty_sentences(text: str) -> list[str]:
    """The sentences that break a rule. Text between backticks or quotation marks does not count."""
    plain = QUOTED.sub("X", CODE_BLOCK.sub("", text))
    sentences = [" ".join(sentence.split()) for part in PART_END.split(plain) for sentence in SENTENCE_END.split(part)]
    return [
        sentence
        for sentence in sentences
        if PHRASES.search(sentence) or (RELATIVE.match(sentence) and not sentence.endswith("?"))
    ]


def texts(file: Path, *, with_literals: bool = False) -> Iterator[tuple[int, str]]:
    """Yield each text for people in a file, with its line.

    In Python these are docstrings and comments. `with_literals` adds all strings of more than one word, which are help
    texts, error details and descriptions.
    """
    if file.suffix != ".py":
        text = file.read_text()
        yield 1, text if file.suffix == ".md" else NO_COMMENT.sub("", text)
        return
    yield from _comments(file)
    for node in _nodes(ast.parse(file.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value
        elif with_literals and isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif with_literals and isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree, but not what is inside docstrings and f-strings."""
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not is_docstring and not isinstance(node, ast.JoinedStr):
            stack.extend(ast.iter_child_nodes(node))


def _comments(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the comments. Comments on lines of their own that follow each other are one text."""
    first, words, last = 0, "", 0
    with file.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            if token.type != tokenize.COMMENT:
                continue
            line, column = token.start
            text = DIRECTIVE.sub("", token.string.lstrip("# "))
            is_alone = not token.line[:column].strip()
            if is_alone and line == last + 1:
                words += f"\n{text}"
            else:
                yield first, words
                first, words = line, text
            last = line if is_alone else 0
    yield first, words
