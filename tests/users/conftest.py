import pytest

from app.testing import LogIn, User
from tests.support.accounts import Login


@pytest.fixture
def root(login: LogIn, admin: User) -> Login:
    """An administrator, the only one, who is logged in."""
    return login(admin)
