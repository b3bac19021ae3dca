"""Tokens: what is signed is read, by us and by other libraries, in its one spelling, while its time and secret last."""

import json
import string
import sys
from base64 import urlsafe_b64decode
from datetime import timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from jose import jws
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import OctKey
from pydantic import ValidationError

from app.auth.claims import AccessClaims, Claims, RefreshClaims
from app.auth.tokens import REMEMBERED, BadToken, EarlyToken, ExpiredToken, Tokens
from app.config import Settings
from tests.support.accounts import refreshed, sign_up
from tests.support.tokens import (
    ACCESS,
    ALPHABET,
    COMMON,
    ISSUER,
    NOW,
    OTHER_SECRET,
    REFRESH,
    SECRET,
    TOKENS,
    assert_refused,
    claims_elsewhere,
    claims_of_any_kind,
    encode,
)

TOKEN = TOKENS.sign(ACCESS)
HEADER, CLAIMS, SIGNATURE = TOKEN.split(".")


@given(claims_of_any_kind)
@settings(deadline=None)
def test_signed_claims_verify_here_and_in_other_libraries(claims: Claims) -> None:
    token = TOKENS.sign(claims)

    assert TOKENS.verify_session_token(token) == claims
    assert claims_elsewhere(token) == claims.model_dump()
    assert jwt.get_unverified_header(token).keys() == {"alg", "typ", "kid"}
    assert jwt.get_unverified_header(token)["typ"] == claims.typ


class TeamClaims(AccessClaims):
    team: str = "none"


@pytest.mark.rfc("7519", "4")
def test_access_claims_may_be_extended() -> None:
    """Old processes ignore the new claim, and new ones use its default for old tokens."""
    extended = TeamClaims(**ACCESS.model_dump(), team="red")
    token = TOKENS.sign(extended)

    assert TOKENS.verify(TeamClaims, token, NOW) == extended
    assert TOKENS.verify(AccessClaims, token, NOW) == TOKENS.verify_session_token(token) == ACCESS
    assert TOKENS.verify(TeamClaims, TOKEN, NOW).team == "none"
    with pytest.raises(BadToken):
        TOKENS.verify(RefreshClaims, token, NOW)


@pytest.mark.rfc("9068", "2.1")
def test_each_kind_is_read_as_itself_only() -> None:
    access, refresh = TOKENS.sign(ACCESS), TOKENS.sign(REFRESH)

    assert TOKENS.verify(AccessClaims, access, NOW) == ACCESS
    assert TOKENS.verify(RefreshClaims, refresh, NOW) == REFRESH
    with pytest.raises(BadToken):
        TOKENS.verify(AccessClaims, refresh, NOW)
    with pytest.raises(BadToken):
        TOKENS.verify(RefreshClaims, access, NOW)


def test_equal_refresh_claims_are_equal_bytes_in_any_process() -> None:
    assert Tokens(ISSUER, [SECRET]).sign(RefreshClaims(**COMMON, gen=1)) == TOKENS.sign(REFRESH)
    assert TOKENS.sign(RefreshClaims(**COMMON, gen=2)) != TOKENS.sign(REFRESH)


@pytest.mark.rfc("7519", "4.1.4")
def test_a_token_is_good_until_the_moment_of_its_exp() -> None:
    token, exp = TOKENS.sign(ACCESS), NOW + timedelta(seconds=1800)

    assert TOKENS.verify(AccessClaims, token, exp - timedelta(microseconds=1)) == ACCESS
    for late in exp, exp + timedelta(days=10_000):
        with pytest.raises(ExpiredToken):
            TOKENS.verify(AccessClaims, token, late)
    assert TOKENS.verify_session_token(token) == ACCESS


def test_some_thousand_verified_access_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, verify = Tokens(ISSUER, [SECRET]), jws.verify
    first, *others = [tokens.sign(ACCESS.model_copy(update={"jti": str(n)})) for n in range(REMEMBERED + 1)]
    refresh = tokens.sign(REFRESH)
    verified: list[str] = []

    def verify_noting(token: str, *args: Any) -> bytes:
        verified.append(token)
        return verify(token, *args)

    monkeypatch.setattr(jws, "verify", verify_noting)

    def read(kind: type[Claims], *texts: str) -> list[str]:
        """The tokens that are verified again."""
        verified.clear()
        for text in texts:
            tokens.verify(kind, text, NOW)
        return list(verified)

    assert read(AccessClaims, first, first) == [first]
    assert read(RefreshClaims, refresh, refresh) == [refresh, refresh]
    assert read(AccessClaims, *others[:-1], first) == others[:-1]
    assert read(AccessClaims, others[-1], first, others[0]) == [others[-1], others[0]]


@pytest.mark.rfc("7519", "4.1.6")
def test_another_host_may_be_a_minute_ahead_and_no_more() -> None:
    token = TOKENS.sign(REFRESH)

    assert TOKENS.verify(RefreshClaims, token, NOW - timedelta(seconds=60)) == REFRESH
    with pytest.raises(EarlyToken):
        TOKENS.verify(RefreshClaims, token, NOW - timedelta(seconds=60, microseconds=1))


def test_an_access_token_from_the_future_is_good() -> None:
    assert TOKENS.verify(AccessClaims, TOKENS.sign(ACCESS), NOW - timedelta(hours=2)) == ACCESS


def test_a_refresh_token_of_another_issuer_is_good() -> None:
    """The secret has signed it, and its session is looked at: so PUBLIC_URL may change."""
    claims = RefreshClaims(**(COMMON | {"iss": "https://tasks.example", "aud": "https://old.example"}), gen=1)

    assert (
        TOKENS.verify(RefreshClaims, TOKENS.sign(claims), NOW)
        == TOKENS.verify_session_token(TOKENS.sign(claims))
        == claims
    )


@pytest.mark.parametrize(
    ("jti", "generation"),
    [
        *(("x.1", 1), ("x.12", 12), ("x.y.3", 3), (f"x.{10**9 - 1}", 10**9 - 1)),
        *((jti, 1) for jti in ("x", "12", "x.", "x.0", "x.y", "x.1\n", "x.\u0663", f"x.{10**9}")),
    ],
)
def test_a_token_says_its_generation_at_the_end_of_its_id(jti: str, generation: int) -> None:
    """The version before gave access tokens none."""
    claims = AccessClaims(**(COMMON | {"jti": jti}))

    assert TOKENS.verify(AccessClaims, TOKENS.sign(claims), NOW).generation == generation


@pytest.mark.rfc("9700", "2.3")
@pytest.mark.parametrize("claim", ["iss", "aud"])
@pytest.mark.parametrize("other", ["https://tasks.example", ISSUER + "/", ISSUER.upper(), ISSUER[:-1], ""])
def test_another_issuer_or_audience_is_refused(claim: str, other: str) -> None:
    token = TOKENS.sign(AccessClaims(**(COMMON | {claim: other})))

    with pytest.raises(BadToken):
        TOKENS.verify(AccessClaims, token, NOW)
    with pytest.raises(BadToken):
        TOKENS.verify_session_token(token)


def test_the_first_secret_signs_and_each_verifies() -> None:
    old, new = Tokens(ISSUER, [SECRET]), Tokens(ISSUER, [OTHER_SECRET])
    rotated = Tokens(ISSUER, [OTHER_SECRET, SECRET])

    assert rotated.sign(ACCESS) == new.sign(ACCESS)
    assert rotated.verify(AccessClaims, old.sign(ACCESS), NOW) == ACCESS
    assert rotated.verify(AccessClaims, new.sign(ACCESS), NOW) == ACCESS
    with pytest.raises(BadToken):
        new.verify(AccessClaims, old.sign(ACCESS), NOW)


def test_a_kid_tells_nothing_of_its_secret_but_which_it_is() -> None:
    kids = {secret: jwt.get_unverified_header(Tokens(ISSUER, [secret]).sign(ACCESS))["kid"] for secret in (SECRET, "x")}

    assert kids[SECRET] != kids["x"]
    assert len(kids[SECRET]) == 16


@pytest.mark.parametrize(
    "secret",
    [
        '"a JSON text of more than thirty-two bytes"',
        '["a JSON list", "of more than thirty-two bytes"]',
        '{"kty": "oct", "k": "YS1rZXktZm9yLXRlc3RzLW9ubHk"}',
        "12345678901234567890123456789012345678901234567890",
        "-----BEGIN PUBLIC KEY----- of more than thirty-two bytes",
        "-----BEGIN CERTIFICATE-----\nMIIBqzCCARQCCQCq\n-----END CERTIFICATE-----",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 me@host",
        "ключ, который длиннее тридцати двух байтов",
        "  a key with spaces around it, and more than that  ",
    ],
    ids=["JSON text", "JSON list", "JWK", "number", "PEM", "certificate", "ssh", "not ASCII", "spaces"],
)
def test_the_key_is_the_utf8_bytes_of_the_secret(secret: str) -> None:
    try:
        Settings(secret_key=secret)
    except ValidationError:
        return  # refused at the start, in words

    tokens = Tokens(ISSUER, [secret])
    token = tokens.sign(ACCESS)

    assert tokens.verify(AccessClaims, token, NOW) == ACCESS
    assert joserfc_jwt.decode(token, OctKey.import_key(secret.encode()), ["HS256"]).claims == ACCESS.model_dump()


@pytest.mark.rfc("7515", "2")
@pytest.mark.parametrize(
    "text",
    {
        "nothing": "",
        "dots": "..",
        "one segment": HEADER,
        "two segments": f"{HEADER}.{CLAIMS}",
        "four segments": f"{TOKEN}.{SIGNATURE}",
        "five segments": f"{TOKEN}.x.x",
        "no header": f".{CLAIMS}.{SIGNATURE}",
        "no claims": f"{HEADER}..{SIGNATURE}",
        "no signature": f"{HEADER}.{CLAIMS}.",
        "alg none": f"{encode(json.dumps({'alg': 'none', 'typ': 'at+jwt', 'kid': ''}).encode())}.{CLAIMS}.",
        "padded header": f"{HEADER}=.{CLAIMS}.{SIGNATURE}",
        "padded claims": f"{HEADER}.{CLAIMS}=.{SIGNATURE}",
        "padded signature": f"{TOKEN}=",
        "space before": f" {TOKEN}",
        "newline after": f"{TOKEN}\n",
        "NUL after": f"{TOKEN}\0",
        "scheme": f"Bearer {TOKEN}",
        "newline within": f"{HEADER}.{CLAIMS[:9]}\n{CLAIMS[9:]}.{SIGNATURE}",
        "junk within": f"{HEADER}.{CLAIMS[:9]}!{CLAIMS[9:]}.{SIGNATURE}",
        "longer signature": f"{TOKEN}AAAA",
        "not ASCII": f"{TOKEN}\u00e9",
        "lone surrogate": f"{TOKEN}\ud800",
        "wide dots": TOKEN.replace(".", "\uff0e"),
        "wide digits": TOKEN.translate({ord(digit): 0xFF10 + int(digit) for digit in string.digits}),
        "long": "A" * 100_000,
    }.items(),
    ids=lambda item: item[0],
)
def test_text_in_another_form_is_refused(text: tuple[str, str]) -> None:
    assert_refused(text[1])


def test_another_last_character_for_the_same_bytes_is_refused() -> None:
    spellings = [f"{SIGNATURE[:-1]}{last}" for last in ALPHABET]
    same = {text for text in spellings if urlsafe_b64decode(f"{text}=") == urlsafe_b64decode(f"{SIGNATURE}=")}

    assert len(same) == 4
    for other in same - {SIGNATURE}:
        assert_refused(f"{HEADER}.{CLAIMS}.{other}")


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_a_token_with_a_character_changed_is_refused(data: st.DataObject) -> None:
    at, cut = data.draw(st.integers(0, len(TOKEN))), data.draw(st.integers(0, 2))
    new = data.draw(st.text(ALPHABET + ".=", max_size=2) | st.text(max_size=2))

    mutant = TOKEN[:at] + new + TOKEN[at + cut :]

    if mutant != TOKEN:
        assert_refused(mutant)


def test_a_login_and_a_refresh_load_neither_ecdsa_nor_rsa(client: TestClient) -> None:
    """ecdsa is installed with jose and has CVE-2024-23342, which is not to be fixed."""
    login = refreshed(client, sign_up(client).refresh_token)
    assert client.get("/users/me", headers=login.headers).status_code == 200

    assert sys.modules.keys() & {"ecdsa", "rsa"} == set()


def test_a_refresh_token_fits_well_into_what_is_read() -> None:
    longest = RefreshClaims(**(COMMON | {"sub": str(UUID(int=0)), "jti": "x" * 64, "scope": "x" * 255}), gen=2**31 - 1)

    assert len(TOKENS.sign(longest)) < 4096 / 2
