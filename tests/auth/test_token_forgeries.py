"""Tokens that are not quite ours: each is `BadToken`, and nothing is ever raised but that."""

import hashlib
import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jwt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.auth.claims import AccessClaims, RefreshClaims
from app.auth.tokens import BadToken
from tests.support.tokens import (
    ACCESS,
    ALPHABET,
    COMMON,
    NOW,
    REFRESH,
    SECRET,
    TOKENS,
    assert_refused,
    claims_elsewhere,
    encode,
)

TOKEN = TOKENS.sign(ACCESS)
HEADER: dict[str, Any] = jwt.get_unverified_header(TOKEN)
DEEP = '{"a":' * 500 + "1" + "}" * 500


class Missing:
    def __repr__(self) -> str:  # the name of a test case, the same in every process
        return "missing"


MISSING: Any = Missing()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)


def forge(header: Any, claims: Any, digest: Callable[..., Any] = hashlib.sha256) -> str:
    """Sign anything with the right secret; text and bytes go in as they are."""
    parts = [part if isinstance(part, str | bytes) else json.dumps(part) for part in (header, claims)]
    signed = ".".join(encode(part.encode() if isinstance(part, str) else part) for part in parts)
    return f"{signed}.{encode(hmac.digest(SECRET.encode(), signed.encode(), digest))}"


def changed(members: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (members | changes).items() if value is not MISSING}


def test_the_forger_knows_the_secret() -> None:
    assert TOKENS.verify(AccessClaims, forge(HEADER, COMMON), NOW) == ACCESS
    assert TOKENS.verify_session_token(forge(changed(HEADER, typ="rt+jwt"), REFRESH.model_dump())) == REFRESH


@pytest.mark.parametrize(
    ("alg", "digest"),
    [
        *((alg, hashlib.sha256) for alg in ("none", "None", "NONE", "", "hs256", "HS256 ", "RS256", "ES256", "EdDSA")),
        *((alg, hashlib.sha256) for alg in (["HS256"], {"HS256": 1}, 256, 0, None, True, "HS384", MISSING)),
        ("HS384", hashlib.sha384),
        ("HS512", hashlib.sha512),
    ],
    ids=repr,
)
def test_another_alg_is_refused(alg: Any, digest: Callable[..., Any]) -> None:
    assert_refused(forge(changed(HEADER, alg=alg), COMMON, digest))


@pytest.mark.parametrize("name", ["typ", "kid"])
@pytest.mark.parametrize("value", [MISSING, None, "", 1, True, ["x"], {"x": 1}, "x" * 64], ids=repr)
def test_a_header_member_of_another_kind_is_refused(name: str, value: Any) -> None:
    assert_refused(forge(changed(HEADER, **{name: value}), COMMON))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "AT+JWT", "at+JWT", "application/at+jwt", "at+jwt ", "rt+jwt"])
def test_a_typ_that_is_not_exactly_the_kinds_is_refused(typ: str) -> None:
    assert_refused(forge(changed(HEADER, typ=typ), COMMON))


@pytest.mark.rfc("7515", "4.1.4")
@pytest.mark.parametrize(
    "kid",
    [HEADER["kid"].upper(), HEADER["kid"][:-1], "../../dev/null", "' OR ''='", "https://evil.example/jwk", "\u0000"],
)
def test_a_kid_that_is_not_exactly_a_keys_is_refused(kid: str) -> None:
    assert_refused(forge(changed(HEADER, kid=kid), COMMON))


@pytest.mark.rfc("7515", "4.1.11")
@pytest.mark.parametrize(
    "member",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"jku": "https://evil.example"},
        {"x5u": "https://evil.example"},
        {"jwk": {"kty": "oct", "k": "YQ"}},
        {"x5c": ["MIIB"]},
        {"cty": "JWT"},
        {"zip": "DEF"},
        {"": ""},
    ],
    ids=str,
)
def test_a_further_header_member_is_refused(member: dict[str, Any]) -> None:
    assert_refused(forge(HEADER | member, COMMON))


@pytest.mark.rfc("9068", "2.2")
@pytest.mark.parametrize("name", ["iss", "aud", "sub", "sid", "jti", "iat", "exp", "scope"])
@pytest.mark.parametrize(
    "value", [MISSING, None, True, {}, [], ["x"], 1.0, float("nan"), pytest.param("\ud800", id="surrogate")], ids=repr
)
def test_a_claim_of_another_type_is_refused(name: str, value: Any) -> None:
    assert_refused(forge(HEADER, changed(COMMON, **{name: value})))


@pytest.mark.parametrize("name", ["iat", "exp"])
@pytest.mark.parametrize(
    "value", [str(COMMON["exp"]), float(COMMON["exp"]), -1, 2**40, 10**30, 1e308, float("inf"), -float("inf")], ids=repr
)
def test_a_time_must_be_a_plain_number_of_seconds(name: str, value: Any) -> None:
    assert_refused(forge(HEADER, COMMON | {name: value}))


@pytest.mark.parametrize("name", ["sub", "sid"])
@pytest.mark.parametrize(
    "value", ["", "ada", 1, COMMON["sub"].upper(), COMMON["sub"] + "\n", COMMON["sub"].replace("-", ""), "{" * 36]
)
def test_an_id_in_another_spelling_is_refused(name: str, value: Any) -> None:
    assert_refused(forge(HEADER, COMMON | {name: value}))


@pytest.mark.parametrize("claim", [{"jti": ""}, {"jti": "x" * 65}, {"scope": "x" * 256}], ids=str)
def test_a_claim_out_of_bounds_is_refused(claim: dict[str, Any]) -> None:
    assert_refused(forge(HEADER, COMMON | claim))


@pytest.mark.parametrize("claim", [{"client_id": "web"}, {"cnf": {"jkt": "x"}}, {"gen": 0}, {"": None}], ids=str)
def test_a_claim_more_is_ignored(claim: dict[str, Any]) -> None:
    """RFC 7519 §4: old and new processes understand each other during an upgrade."""
    assert TOKENS.verify(AccessClaims, forge(HEADER, COMMON | claim), NOW) == ACCESS
    refresh = forge(changed(HEADER, typ="rt+jwt"), claim | REFRESH.model_dump())
    assert TOKENS.verify(RefreshClaims, refresh, NOW) == REFRESH


@pytest.mark.parametrize("gen", [MISSING, None, 0, -1, 2**31, 1.0, True, "1", [1]], ids=repr)
def test_a_refresh_token_of_no_generation_is_refused(gen: Any) -> None:
    assert_refused(forge(changed(HEADER, typ="rt+jwt"), changed(COMMON, gen=gen)))


@pytest.mark.parametrize("name", ["alg", "typ", "kid"])
def test_a_header_member_that_stands_twice_is_refused(name: str) -> None:
    twice = json.dumps(HEADER)[:-1] + f', "{name}": "{HEADER[name]}"}}'

    assert_refused(forge(twice, COMMON))


@pytest.mark.rfc("7519", "4")
@pytest.mark.parametrize("name", ["iss", "sub", "exp"])
def test_a_claim_that_stands_twice_is_refused(name: str) -> None:
    twice = json.dumps(COMMON)[:-1] + f', "{name}": {json.dumps(COMMON[name])}}}'

    assert_refused(forge(HEADER, twice))


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "1", '"x"', "[]", "{", "{}", "[" * 999, DEEP),
        pytest.param(b"\xff", id="no UTF-8"),
        pytest.param(b'{"\xff": 1}', id="a name of no UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
    ],
    ids=lambda text: repr(text[:9]),
)
def test_a_part_that_is_not_the_object_is_refused(text: str | bytes) -> None:
    assert_refused(forge(text, COMMON))
    assert_refused(forge(HEADER, text))


def test_a_token_is_read_up_to_4096_characters() -> None:
    def padded(spaces: int) -> str:
        return forge(HEADER, json.dumps(COMMON) + " " * spaces)

    longest = max((padded(spaces) for spaces in range(2700) if len(padded(spaces)) <= 4096), key=len)
    assert len(longest) >= 4095
    assert TOKENS.verify(AccessClaims, longest, NOW) == ACCESS
    assert_refused(padded(2700))


segments = st.text(ALPHABET, max_size=12) | json_values.map(lambda value: encode(json.dumps(value).encode()))
near_headers = st.dictionaries(st.sampled_from([*HEADER, "crit", "jwk"]), json_values, max_size=2)
near_claims = st.dictionaries(st.sampled_from([*COMMON, "nbf", "gen"]), json_values, max_size=2)
near_tokens = st.builds(lambda header, claims: forge(HEADER | header, COMMON | claims), near_headers, near_claims)


@given(st.text() | st.lists(segments, max_size=5).map(".".join) | near_tokens)
@example(TOKEN)
@example(forge(HEADER, COMMON | {"scope": "", "jti": "\u00e9", "iat": 0}))
@settings(deadline=None, max_examples=200)
def test_any_text_is_refused_or_verifies_elsewhere_too(text: str) -> None:
    """The service accepts no token that other libraries refuse."""
    read = []
    for kind in AccessClaims, RefreshClaims:
        with suppress(BadToken):
            read.append(TOKENS.verify(kind, text, NOW))
    with suppress(BadToken):
        read.append(TOKENS.verify_session_token(text))

    for claims in read:
        elsewhere = claims_elsewhere(text)
        assert elsewhere | claims.model_dump() == elsewhere
