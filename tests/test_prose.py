"""Plain English wherever people read: READMEs, docstrings, comments, help texts, error details, OpenAPI texts."""

from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.prose import faulty_sentences, texts
from tests.support.readme import READMES

ADVICE = "Write subject, verb, object, and say who acts. Do not begin a sentence with a relative clause."
FILES = [
    *READMES,
    ROOT / ".env.example",
    *(file for folder in ("app", "alembic", "tests") for file in (ROOT / folder).rglob("*.py")),
]


def test_sentences_are_plain() -> None:
    faults = [
        f"{name}:{line}: {sentence}"
        for file in FILES
        for name in [str(file.relative_to(ROOT))]
        for line, text in texts(file, with_literals=name.startswith("app/"))
        for sentence in faulty_sentences(text)
    ]

    assert not faults, "\n".join([ADVICE, *faults])


@pytest.mark.parametrize(
    "text",
    [
        "Who has forgotten the password needs no mail server: call it.",
        "Tokens say nothing of a logout; who must know, asks.",
        "It works. What such a process changes is found by its old words.",
        "Whatever a hook raises is 503.",
        "Where there is no token, it is None.",
        "- whose turn it is",
        "| `write_one` | What is written at once |",
        "Which limit holds first is not said.",
        "The worker ends by itself.",
        "Each begins anew.",
        "Requests wait meanwhile.",
        "The password stays as it is.",
        "FastAPI takes its tokens along.",
    ],
)
def test_a_riddle_is_refused(text: str) -> None:
    assert len(faulty_sentences(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "To reset a forgotten password without a mail server, an administrator calls it. The token works once.",
        "A service that verifies tokens offline does not see a logout until the token expires.",
        "Each attempt counts as a failure until the password proves right.",
        "How often may somebody try to log in?",
        "Who wins?",
        "The doctor: what is wrong here, and what to do.",
        "RFC 6749 says “Where the scope is omitted, it is the old one.”",
        "Call `what_it_is` again.",
        "```sh\n# what signs\nserve\n```\n",
    ],
)
def test_a_plain_sentence_passes(text: str) -> None:
    assert faulty_sentences(text) == []


def test_all_texts_of_a_module_are_read(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        '"""Who calls."""\n'
        "# What a comment\n# says.\n"
        "X = 1  # noqa: S105 - where it is\n"
        'DETAIL = f"What {X} did"\n'
        'HELP = "Whoever asks"\n'
        "PROSE_OF_NOBODY = 'where'\n"
    )

    assert {line for line, text in texts(file, with_literals=True) if faulty_sentences(text)} == {1, 2, 4, 5, 6}
    assert {line for line, text in texts(file) if faulty_sentences(text)} == {1, 2, 4}
