"""Plain English wherever people read: READMEs, docstrings, comments, help texts, error details, OpenAPI texts."""

from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.prose import faulty_sentences, texts
from tests.support.readme import READMES

ADVICE = "Write subject, verb, object, and say who acts. Do not begin a sentence with a relative clause."
NOT_YET: set[str] = {  # files whose prose is still to be mended
    "alembic/versions/2026_11_24_throttle.py",
    "app/auth/callers.py",
    "app/auth/counters.py",
    "app/auth/dependencies.py",
    "app/auth/errors.py",
    "app/auth/keys.py",
    "app/auth/login_service.py",
    "app/auth/logins.py",
    "app/auth/models.py",
    "app/auth/passwords.py",
    "app/auth/schemas.py",
    "app/auth/service.py",
    "app/auth/throttle.py",
    "app/cli/check.py",
    "app/cli/run.py",
    "app/cli/serve.py",
    "app/cli/users.py",
    "app/config.py",
    "app/db/constraints.py",
    "app/db/database.py",
    "app/db/migrations.py",
    "app/db/postgresql.py",
    "app/db/sqlite_connections.py",
    "app/db/turns.py",
    "app/db/types.py",
    "app/http/cors.py",
    "app/http/json_body.py",
    "app/http/middleware.py",
    "app/http/planned_routes.py",
    "app/http/query.py",
    "app/main.py",
    "app/observe/events.py",
    "app/observe/logs.py",
    "app/observe/metrics.py",
    "app/observe/requests.py",
    "app/pagination/page.py",
    "app/server/protocol.py",
    "app/server/run.py",
    "app/server/transport.py",
    "app/tasks/dependencies.py",
    "app/tasks/errors.py",
    "app/tasks/router.py",
    "app/tasks/schemas.py",
    "app/tasks/search.py",
    "app/tasks/service.py",
    "app/testing.py",
    "app/upkeep.py",
    "app/users/deletion.py",
    "app/users/dependencies.py",
    "app/users/router.py",
    "app/users/schemas.py",
    "app/users/service.py",
    "tests/auth/test_atomicity.py",
    "tests/auth/test_introspection.py",
    "tests/auth/test_login.py",
    "tests/auth/test_metadata.py",
    "tests/auth/test_races.py",
    "tests/auth/test_refresh.py",
    "tests/auth/test_session_machine.py",
    "tests/auth/test_throttle.py",
    "tests/auth/test_throttle_counts.py",
    "tests/auth/test_timing.py",
    "tests/auth/test_token_fuzz.py",
    "tests/auth/test_tokens.py",
    "tests/benchmarks/against.py",
    "tests/benchmarks/compare.py",
    "tests/benchmarks/flood.py",
    "tests/benchmarks/floor.py",
    "tests/benchmarks/growth.py",
    "tests/benchmarks/load.py",
    "tests/benchmarks/races.py",
    "tests/cli/test_check.py",
    "tests/conftest.py",
    "tests/db/test_backup.py",
    "tests/db/test_constraints.py",
    "tests/db/test_database.py",
    "tests/db/test_database_away.py",
    "tests/db/test_migrations.py",
    "tests/db/test_plans.py",
    "tests/http/test_bad_input.py",
    "tests/http/test_docs.py",
    "tests/http/test_proxies.py",
    "tests/observe/test_events.py",
    "tests/observe/test_logs.py",
    "tests/observe/test_traces.py",
    "tests/server/test_rolling.py",
    "tests/server/test_server.py",
    "tests/support/bad_requests.py",
    "tests/support/fuzzer.py",
    "tests/support/key_pairs.py",
    "tests/support/postgres.py",
    "tests/support/processes.py",
    "tests/tasks/test_limits.py",
    "tests/tasks/test_pages.py",
    "tests/tasks/test_search.py",
    "tests/tasks/test_slashes.py",
    "tests/tasks/test_task_machine.py",
    "tests/tasks/test_visibility.py",
    "tests/test_canary.py",
    "tests/test_health.py",
    "tests/test_rows.py",
    "tests/test_start.py",
    "tests/users/test_administration.py",
    "tests/users/test_delete_account.py",
    "tests/users/test_deletion.py",
    "tests/users/test_recovery.py",
    "tests/users/test_rights.py",
}
FILES = [
    *READMES,
    ROOT / ".env.example",
    *(file for folder in ("app", "alembic", "tests") for file in (ROOT / folder).rglob("*.py")),
]


def test_sentences_are_plain() -> None:
    faults = [
        f"{name}:{line}: {sentence}"
        for file in FILES
        if (name := str(file.relative_to(ROOT))) not in NOT_YET
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
