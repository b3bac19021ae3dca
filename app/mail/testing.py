"""The mailbox of the pytest kit.

PYTEST_DONT_REWRITE: `app.testing` may be imported before pytest can rewrite this module.
"""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient

from app.mail.templates import Mail


class Mailbox(Sequence[Mail]):
    """The mails of a test's services. To read it waits until the services have sent what they have to send."""

    def __init__(self) -> None:
        self.clients: list[TestClient] = []
        self._mails: list[Mail] = []

    async def put(self, mail: Mail) -> None:
        """Keep a mail. This is the MAIL_HOOK of the services."""
        self._mails.append(mail)

    def __len__(self) -> int:
        return len(self[:])

    def __getitem__(self, index: Any) -> Any:
        for client in self.clients:
            if client.portal and (outbox := cast("Any", client.app).state.services.mail):
                client.portal.call(outbox.drained)
        return self._mails[index]


@pytest.fixture
def mailbox() -> Mailbox:
    """The mails that the service sends, as a sequence: `mailbox[-1].token`. Without this fixture it sends none."""
    return Mailbox()
