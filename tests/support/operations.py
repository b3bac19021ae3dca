"""The operations of the service, as tests call them."""

from typing import Any

from tests.support.accounts import PASSWORD

GOOD_BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/tasks"): {"json": {"title": "Water"}},
    ("patch", "/tasks/{task_id}"): {"json": {"status": "done"}},
    ("post", "/auth/token"): {"data": {"username": "ada", "password": PASSWORD}},
    ("post", "/auth/revoke"): {"data": {"token": "unknown"}},
    ("post", "/auth/introspect"): {"data": {"token": "unknown"}},
    ("post", "/auth/tokens"): {"json": {"name": "Backup"}},
    ("post", "/users"): {"json": {"username": "bob", "password": PASSWORD}},
    ("patch", "/users/me"): {"json": {"email": None}},
    ("put", "/users/me/password"): {"json": {"current_password": PASSWORD, "new_password": PASSWORD[::-1]}},
    ("put", "/users/me/totp"): {"json": {"code": "123456"}},
    ("post", "/users/reset-password"): {"json": {"reset_token": "unknown", "new_password": PASSWORD[::-1]}},
    ("post", "/users/verify-email"): {"json": {"verification_token": "unknown"}},
    ("post", "/users/forgot-password"): {"json": {"username": "ada"}},
    ("patch", "/users/{user_id}"): {"json": {"is_active": False}},
}
"""A body that is good for each operation that takes one, by method and path."""
