"""The outbox tries several times, is bounded, and is emptied at the end. No log has an address, a token or a text."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from app.mail import outbox
from app.mail.outbox import Outbox
from app.mail.templates import Mail, verification

TOKEN = "eyJcanary"
TO_ADA = verification("canary@example.com", "canary", TOKEN, None)
CANARIES = "canary", "confirm", "Hello"


class Refusal(Exception):
    def __init__(self, code: object) -> None:
        self.code = code
        super().__init__(f"canary {code}")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(outbox, "PAUSES", (0, 0, 0))
    caplog.set_level(logging.WARNING, "app.mail")


def run(transport: Callable[[Mail], Awaitable[None]], f: Callable[[Outbox], Awaitable[None]]) -> None:
    """Run `f` with an outbox, until that has ended."""

    async def with_outbox() -> None:
        box = Outbox(transport)
        async with box.running():
            await f(box)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(with_outbox())


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert not [canary for canary in CANARIES if canary in caplog.text]
    return [record.getMessage() for record in caplog.records]


def tries(*outcomes: object, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Send a mail by a transport with these outcomes: errors, or None. Return the log."""
    left = list(outcomes)

    async def transport(mail: Mail) -> None:
        assert mail == TO_ADA
        if isinstance(outcome := left.pop(0), Exception):
            raise outcome

    async def send(box: Outbox) -> None:
        box.send(TO_ADA)
        await box.drained()

    run(transport, send)
    assert left == []
    return lines(caplog)


def test_a_mail_is_sent_once(caplog: pytest.LogCaptureFixture) -> None:
    assert tries(None, caplog=caplog) == []


def test_a_failed_try_is_followed_by_another(caplog: pytest.LogCaptureFixture) -> None:
    said = tries(OSError("canary"), Refusal(451), Refusal("canary"), None, caplog=caplog)

    assert said == [f"a mail was not sent: {words}" for words in ("OSError", "Refusal 451", "Refusal")]


def test_a_mail_whose_last_try_fails_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    said = tries(*[OSError("canary")] * 4, caplog=caplog)

    assert said[-2:] == [
        "a mail was not sent: OSError",
        "a mail is lost: the mail server did not take it (verify_email)",
    ]


def test_a_mail_that_is_refused_for_good_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    said = tries(Refusal(550), caplog=caplog)

    assert said == [
        "a mail was not sent: Refusal 550",
        "a mail is lost: the mail server did not take it (verify_email)",
    ]


def test_a_try_has_its_time(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SECONDS", 0)

    async def wait(_: Mail) -> None:
        await asyncio.Event().wait()

    async def send(box: Outbox) -> None:
        box.send(TO_ADA)
        await box.drained()

    run(wait, send)

    assert lines(caplog).count("a mail was not sent: TimeoutError") == 4


def test_a_full_outbox_drops_mails_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST", 5)
    monkeypatch.setattr(outbox, "AT_ONCE", 2)
    at_once, most, sent = 0, 0, 0

    async def transport(_: Mail) -> None:
        nonlocal at_once, most, sent
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        sent += 1

    async def send(box: Outbox) -> None:
        for _ in range(7):
            box.send(TO_ADA)

    run(transport, send)

    assert (sent, most) == (5, 2)
    assert lines(caplog) == ["a mail is lost: 5 are waiting"] * 2


def test_the_end_tries_what_waits_once_more(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAUSES", (3600, 3600))
    failed, tried = asyncio.Event(), []

    async def transport(mail: Mail) -> None:
        tried.append(mail.username)
        if mail.username == "lost" or tried.count(mail.username) == 1:
            failed.set()
            raise OSError("canary")

    async def send(box: Outbox) -> None:
        for name in "lost", "late":
            box.send(TO_ADA._replace(username=name))
        await failed.wait()

    run(transport, send)

    assert sorted(tried) == ["late", "late", "lost", "lost"]
    assert lines(caplog)[-1] == "a mail is lost: the mail server did not take it (verify_email)"


def test_the_end_waits_for_jobs_and_for_their_mails(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Mail] = []

    async def transport(mail: Mail) -> None:
        sent.append(mail)

    async def leave_a_job(box: Outbox) -> None:
        async def job() -> None:
            await asyncio.sleep(0)
            box.send(TO_ADA)

        box.after_answer(job)

    run(transport, leave_a_job)

    assert sent == [TO_ADA]
    assert lines(caplog) == []


def test_the_end_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "STOP_SECONDS", 0)

    async def transport(_: Mail) -> None:
        await asyncio.Event().wait()

    async def send(box: Outbox) -> None:
        box.send(TO_ADA)

    run(transport, send)

    assert lines(caplog) == ["a mail is lost: the process stops"]


def test_a_job_that_fails_leaves_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async def transport(_: Mail) -> None:
        raise NotImplementedError

    async def fail(box: Outbox) -> None:
        async def job() -> None:
            raise KeyError("canary")

        box.after_answer(job)

    run(transport, fail)

    assert lines(caplog) == ["a mail was not made: KeyError"]
