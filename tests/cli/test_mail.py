"""python -m app mail-test sends one mail and says how that went."""

from tests.support.command_line import run
from tests.support.mail_hook import HOOK, mails
from tests.support.mail_server import mail_server
from tests.support.processes import free_port

SENDER = "Tasks <tasks@example.com>"


def test_a_mail_that_the_server_takes() -> None:
    with mail_server() as server:
        said = run("mail-test", "ada@example.com", smtp_url=server.url(), mail_from=SENDER)
        [letter] = server.take()

    assert (said.exit_code, said.stdout) == (0, "The mail server has taken a mail to ada@example.com.\n")
    assert letter.message["Subject"] == "Bearer Tasks: mail works"


def test_a_mail_by_the_hook() -> None:
    assert run("mail-test", "ada@example.com", mail_hook=HOOK).exit_code == 0
    assert [mail.to for mail in mails()] == ["ada@example.com"]


def test_a_mail_that_the_server_refuses() -> None:
    with mail_server() as server:
        server.refusal = "550 nobody of that name"
        said = run("mail-test", "ada@example.com", smtp_url=server.url(), mail_from=SENDER)

    assert (said.exit_code, said.stdout) == (1, "")
    assert said.stderr == "error: the mail was not sent: SMTPRecipientRefused 550\n"


def test_a_server_that_is_away() -> None:
    said = run("mail-test", "ada@example.com", smtp_url=f"smtp://127.0.0.1:{free_port()}", mail_from=SENDER)

    assert (said.exit_code, said.stderr) == (1, "error: the mail was not sent: SMTPConnectError\n")


def test_settings_without_mail_and_a_bad_address() -> None:
    without, bad = run("mail-test", "ada@example.com"), run("mail-test", "ada", mail_hook=HOOK)

    assert without.exit_code == bad.exit_code == 1
    assert without.stderr == "error: The service sends no mail: an administrator sets SMTP_URL or MAIL_HOOK\n"
    assert bad.stderr == "error: address: Value error, is not an e-mail address\n"
