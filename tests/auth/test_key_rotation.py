"""From the secret to a key pair, and from one key pair to the next: nobody is logged out."""

from collections.abc import Callable

import pytest

from tests.conftest import MovableClock, Serve
from tests.support.accounts import log_in, refreshed, sign_up
from tests.support.key_pairs import PrivateKey, key, kid_of, private, public, published, thumbprint, verified, written


def test_the_switch_to_a_key_pair_and_back_logs_nobody_out(serve: Serve) -> None:
    before = sign_up(serve())

    switched = serve(jwt_private_key_file=written(private(key("ES256"))))

    assert switched.get("/tasks/mine", headers=before.headers).status_code == 200
    after = refreshed(switched, before.refresh_token)
    assert kid_of(after.access_token) == thumbprint(key("ES256"))
    back = serve()
    assert back.get("/tasks/mine", headers=after.headers).status_code == 401
    assert back.get("/tasks/mine", headers=refreshed(back, after.refresh_token).headers).status_code == 200


@pytest.mark.parametrize("half", [private, public], ids=["whole", "public half"])
def test_a_rotation_in_three_steps_logs_nobody_out(
    serve: Serve, clock: MovableClock, half: Callable[[PrivateKey], str]
) -> None:
    old, new = key("RS256"), key("ES256")
    first = sign_up(serve(jwt_private_key_file=written(private(old))))

    client = serve(jwt_private_key_file=written(private(old) + private(new)))
    known = published(client)
    second = log_in(client)
    assert list(known) == [thumbprint(old), thumbprint(new)]
    assert kid_of(second.access_token) == thumbprint(old)

    client = serve(jwt_private_key_file=written(private(new) + half(old)))
    third = log_in(client)
    assert kid_of(third.access_token) == thumbprint(new)
    assert verified(third.access_token, known)["scope"] == third.scope
    assert verified(second.access_token, published(client))["scope"] == second.scope
    for login in first, second, third:
        assert client.get("/tasks/mine", headers=login.headers).status_code == 200

    clock.move(seconds=1800)
    for login in first, second:
        expired = client.get("/tasks/mine", headers=login.headers)
        assert (expired.status_code, expired.json()) == (
            401,
            {"detail": "The access token has expired", "code": "invalid_token"},
        )
    fourth = log_in(client)
    client = serve(jwt_private_key_file=written(private(new)))
    assert list(published(client)) == [thumbprint(new)]
    for login in *(refreshed(client, login.refresh_token) for login in (first, second, third)), fourth:
        assert client.get("/tasks/mine", headers=login.headers).status_code == 200
