"""Mutated tokens: each is `BadToken`, or claims in one spelling, of which PyJWT and joserfc read the very same."""

import json
import re
import string
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from random import Random, SystemRandom
from typing import Any, Final, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, RSAKey

from app.auth.claims import AccessClaims, Claims, RefreshClaims
from app.auth.tokens import BadToken, ExpiredToken, PEMKey, Tokens
from tests.support.key_pairs import another_key, key, kid_of, private, public, thumbprint
from tests.support.tokens import (
    ACCESS,
    COMMON,
    EPOCH,
    ISSUER,
    NOW,
    OTHER_SECRET,
    REFRESH,
    SECRET,
    claims_of_any_kind,
    encode,
)

ALGORITHMS: Final = ("HS256", "ES256", "RS256")
FEW: Final = 800
MANY: Final = 333_334  # of each algorithm: a million in all
SIGNATURE_ALONE: Final[Any] = {f"verify_{name}": False for name in ("exp", "iat", "nbf", "iss", "aud")}
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

BASE64: Final = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
STRANGE: Final = "=. +/\n\0%&\u00e9\uff0e\uff21\u0661\u2028\U0001f600\ud800"
WIDE: Final = {ord(letter): ord(letter) + 0xFEE0 for letter in string.ascii_letters + string.digits + "._-"}
VALUES: Final[list[Any]] = [
    *(None, True, False, 0, 1, -1, 1.0, -0.0, 0.5, 2**31 - 1, 2**31, 2**40 - 1, 2**40, 2**64, 10**30, 10**2000, 1e308),
    *(float("inf"), -float("inf"), float("nan"), EPOCH, EPOCH - 1, EPOCH + 1, EPOCH + 60, EPOCH + 61, str(EPOCH)),
    *("", " ", "0", "null", "\0", "\n", "\u00e9", "e\u0301", "\u202e", "\U0001f600", "\ud800", "x" * 64, "x" * 65),
    *("x" * 255, "x" * 256, "x" * 2000, COMMON["sub"].upper(), COMMON["sub"] + "\n", ISSUER + "/", ISSUER.upper()),
    *([], ["x"], [ISSUER], [["x"]], {}, {"x": None}, {"x": {"x": []}}, ["HS256"], *COMMON.values()),
    *("none", "None", "HS256", "HS384", "ES256", "RS256", "PS256", "EdDSA", "at+jwt", "rt+jwt", "JWT", "at+JWT"),
]
FITTING: Final[dict[str, list[Any]]] = {
    "jti": ["x", "\u00e9", "\0", "x" * 64],
    "scope": ["", "\n", "\U0001f600", "x" * 255],
    "iat": [0, EPOCH, EPOCH + 60, EPOCH + 61, 2**40 - 1],
    "exp": [0, EPOCH, EPOCH + 1, 2**40 - 1],
    "gen": [1, 2, 2**31 - 1],
}
HEADER_NAMES: Final = [*["alg", "typ", "kid"] * 5, "crit", "b64", "jku", "jwk", "x5c", "zip", "ALG", "", "\ud800"]
CLAIM_NAMES: Final = [*[*COMMON, *FITTING] * 2, "nbf", "client_id", "cnf", "Exp", "", "\u00e9", "\ud800"]
NUMBERS: Final = ("9" * 2000, "0" * 9, "{}.0", "{}e0", "{}E+0", "0{}", "-{}", "+{}", "{}.", "0x{}", "{}L", "1_{}")
JUNK: Final = (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xef\xbb\xbf", b"\0", b",", b"}", b"{", b'"', b"\\", b" ", b"/")
ENCODINGS: Final = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7")


class Key(NamedTuple):
    """A signing key, as PyJWT takes it, under the id and the algorithm that the header names."""

    kid: str
    algorithm: str
    private: Any

    def sign(self, header: bytes, claims: bytes) -> str:
        signed = f"{encode(header)}.{encode(claims)}"
        return f"{signed}.{encode(jwt.get_algorithm_by_name(self.algorithm).sign(signed.encode(), self.private))}"


class Service:
    """Signs by one algorithm and knows older keys too, as after rotations; other libraries know the same keys."""

    def __init__(self, algorithm: str) -> None:
        secrets = {kid_of(Tokens(ISSUER, [secret]).sign(ACCESS)): secret for secret in (SECRET, OTHER_SECRET)}
        pairs = {"HS256": [], "ES256": ["ES256", "RS256"], "RS256": ["RS256", "ES256"]}[algorithm]
        pems = [PEMKey(kind, (public if n else private)(key(kind)), not n) for n, kind in enumerate(pairs)]
        self.tokens = Tokens(ISSUER, [*secrets.values()], pems)
        self.keys = [Key(kid, "HS256", secret.encode()) for kid, secret in secrets.items()]
        self.keys += [Key(thumbprint(key(kind)), kind, key(kind)) for kind in pairs]
        self._elsewhere: dict[str, tuple[Any, Any, list[str]]] = {
            kid: (secret, OctKey.import_key(secret), ["HS256"]) for kid, secret in secrets.items()
        }
        for kid, kind, pair in self.keys[len(secrets) :]:
            imported = (ECKey if kind == "ES256" else RSAKey).import_key(public(pair))
            self._elsewhere[kid] = (pair.public_key(), imported, [kind])

    def examine(self, text: str) -> str:
        """Read it in each of the service's ways: `refused` by all of them, `expired` by one, or else `accepted`."""
        read: list[Claims] = []
        is_expired = False
        for reader in (
            partial(self.tokens.verify, AccessClaims, text, NOW),
            partial(self.tokens.verify, RefreshClaims, text, NOW),
            partial(self.tokens.verify_session_token, text, NOW),
            partial(self.tokens.verify_session_token, text),
        ):
            try:
                read.append(reader())
            except ExpiredToken:
                is_expired = True
            except BadToken:
                continue
        if not read:
            assert not is_expired
            return "refused"
        parts = [urlsafe_b64decode(f"{part}==") for part in text.split(".")]
        assert ".".join(map(encode, parts)) == text
        for members in (json.loads(part, object_pairs_hook=list) for part in parts[:2]):
            assert len(members) == len(dict(members))
        said, others = read[0].model_dump(), self.elsewhere(text)
        assert [claims.model_dump() for claims in read] == [said] * len(read)
        assert [claims | said for claims in others] == others
        assert len(others) == 2
        if not isinstance(read[0], RefreshClaims):
            assert said["iss"] == said["aud"] == ISSUER
        return "expired" if is_expired else "accepted"

    def elsewhere(self, text: str) -> list[dict[str, Any]]:
        """The claims as PyJWT and joserfc read them, by the signature alone; of either, nothing where it refuses."""
        read: list[dict[str, Any]] = []
        pyjwt_key, joserfc_key, algorithms = self._elsewhere[kid_of(text)]
        with suppress(jwt.PyJWTError):
            read.append(jwt.decode(text, pyjwt_key, algorithms, SIGNATURE_ALONE))
        with suppress(JoseError):
            read.append(joserfc_jwt.decode(text, joserfc_key, algorithms).claims)
        return read


@cache
def another_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def wrong_keys(keys: list[Key]) -> Iterator[Key]:
    """Under the id of each key others: of its kind, of another kind, its public half as a secret, and none."""
    stranger: dict[str, Any] = {"HS256": b"x" * 37, "ES256": another_key(), "RS256": another_rsa_key()}
    for kid, algorithm, right in keys:
        yield Key(kid, algorithm, stranger[algorithm])
        yield from (Key(kid, other.algorithm, other.private) for other in keys if other.kid != kid)
        yield from (Key(kid, "HS256", b""), Key(kid, "none", None), Key("", algorithm, right))
        if algorithm == "HS256":
            yield from (Key(kid, "HS384", right), Key(kid, "HS512", right))
        else:
            yield from (Key(kid, "HS256", text.encode()) for text in (public(right), public(right).strip()))
        if algorithm == "RS256":
            yield from (Key(kid, "RS512", right), Key(kid, "PS256", right))


class Fuzzer:
    """Makes what is nearly a token of the service's: from one seed and the same keys the same texts."""

    def __init__(self, service: Service, seed: int) -> None:
        self.random = Random(seed)
        self.keys, self.wrong_keys = service.keys, list(wrong_keys(service.keys))
        self.genuine = [service.tokens.sign(ACCESS), service.tokens.sign(REFRESH)]
        self.genuine += [self.forge(key) for key in self.keys for _ in range(4)]
        self.forged = [self.forge(key) for key in self.wrong_keys]
        self.signed = {token.rpartition(".")[0] for token in self.genuine}
        self.makers = {"no key": self.edit, "wrong key": self.forge_by_wrong_key, "right key": self.forge_by_right_key}

    def edit(self) -> str:
        """Change a genuine token, as anybody can."""
        text = self.random.choice(self.genuine)
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            text = self.random.choice(EDITS)(self.random, text, self.random.choice(self.genuine + self.forged))
        return text

    def forge_by_wrong_key(self) -> str:
        return self.forge(self.random.choice(self.wrong_keys), self.random.choice((0, 0, 1)))

    def forge_by_right_key(self) -> str:
        spelling = self.random.choice([_plain, self.random.choice(SPELLINGS)])
        return self.forge(self.random.choice(self.keys), self.random.choice((0, 0, 1, 1, 2)), spelling)

    def forge(self, key: Key, changes: int = 0, spelling: "Spelling | None" = None) -> str:
        """Sign a header and claims that are good but for so many changes, one of them in that spelling."""
        claims = self.random.choice([ACCESS, REFRESH])
        header = {"alg": key.algorithm, "typ": claims.typ, "kid": key.kid}
        members = claims.model_dump() | {"exp": EPOCH + self.random.randint(-600, 1800)}
        for _ in range(changes):
            changed, names = self.random.choice([(header, HEADER_NAMES), *[(members, CLAIM_NAMES)] * 3])
            name = self.random.choice(names)
            changed[name] = self.random.choice(self.random.choice([VALUES, FITTING.get(name, VALUES)]))
            if self.random.random() < 0.1:
                del changed[name]
        spellings = [_plain, spelling or _plain]
        if self.random.random() < 0.4:
            spellings.reverse()
        return key.sign(*(spell(self.random, part) for spell, part in zip(spellings, (header, members), strict=True)))


def _slice(random: Random, text: str) -> tuple[str, str, str]:
    """A text in three, of which the second is often one character."""
    start = random.randint(0, len(text))
    end = start + random.choice((0, 1, 1, 1, 2, 4, 40, 400))
    return text[:start], text[start:end], text[end:]


def _replace(random: Random, text: str, _: str) -> str:
    before, _, after = _slice(random, text)
    letters = random.choices(random.choice((BASE64, BASE64, STRANGE)), k=random.choice((1, 1, 2, 4)))
    return before + "".join(letters) + after


def _cut(random: Random, text: str, _: str) -> str:
    before, cut, after = _slice(random, text)
    return random.choice((before, after, before + after, cut))


def _double(random: Random, text: str, _: str) -> str:
    before, twice, after = _slice(random, text)
    return random.choice((before + twice * 2 + after, text * 2, f"{text}.{text}"))


def _mix(random: Random, text: str, other: str) -> str:
    """Put the segments of two tokens together: one swapped, or any of them."""
    segments, others = text.split("."), other.split(".")
    swapped = [random.choice(pair) for pair in zip(segments, others, strict=False)]
    return ".".join(random.choice((swapped, random.choices([*segments, *others], k=random.randint(1, 5)))))


def _respell(random: Random, text: str, _: str) -> str:
    """Spell a segment in a way that decoders may take for the same bytes."""
    segments = text.split(".")
    at = random.randrange(len(segments))
    segment = segments[at]
    spellings = [
        segment + "=" * (-len(segment) % 4 or random.randint(1, 4)),
        segment[:-1] + BASE64[BASE64.find(segment[-1:]) ^ random.randint(1, 3)],
        segment.replace("-", "+").replace("_", "/"),
        segment[:9] + random.choice(("\n", " ", "!", "=", "\r\n")) + segment[9:],
        segment + "A" * random.randint(1, 4),
        segment.swapcase(),
        segment.translate(WIDE),
    ]
    segments[at] = random.choice(spellings)
    return ".".join(segments)


def _flip(random: Random, text: str, _: str) -> str:
    """Change the bytes of a segment and encode them well."""
    segments = text.split(".")
    at = random.randrange(len(segments))
    with suppress(ValueError):
        old = urlsafe_b64decode(segments[at] + "=" * (-len(segments[at]) % 4))
        place = random.randrange(len(old))
        flipped = old[:place] + bytes([old[place] ^ (1 << random.randrange(8))]) + old[place + 1 :]
        segments[at] = encode(random.choice((flipped, flipped, old[::-1], old + b"\0", b"\0" + old, old[:-1])))
    return ".".join(segments)


def _twin(_random: Random, text: str, _: str) -> str:
    """The other signature that ECDSA has for the same text: from the one anybody can make the other."""
    signed, dot, signature = text.rpartition(".")
    with suppress(ValueError):
        decoded = urlsafe_b64decode(f"{signature}==")
        if len(decoded) == 64:
            s = (P256_ORDER - int.from_bytes(decoded[32:], "big")) % 2**256
            return f"{signed}{dot}{encode(decoded[:32] + s.to_bytes(32, 'big'))}"
    return text


Edit = Callable[[Random, str, str], str]
EDITS: Final[list[Edit]] = [_replace, _replace, _cut, _double, _mix, _respell, _flip, _twin]


def _dump(members: Any, **layout: Any) -> bytes:
    return json.dumps(members, **layout).encode("utf-8", "surrogatepass")


def _plain(_: Random, members: dict[str, Any]) -> bytes:
    return _dump(members)


def _loose(random: Random, members: dict[str, Any]) -> bytes:
    """The same, in another order or layout, or with other escapes."""
    shuffled = dict(random.sample(list(members.items()), len(members)))
    text = _dump(shuffled, ensure_ascii=random.random() < 0.5, indent=random.choice((None, None, 0, 1, "\t")))
    name = random.choice([*members])
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
    return text.replace(f'"{name}"'.encode("utf-8", "surrogatepass"), f'"{escaped}"'.encode(), random.randint(0, 1))


def _twice(random: Random, members: dict[str, Any]) -> bytes:
    name = random.choice([*members, *members, *CLAIM_NAMES])
    twice = _dump({name: random.choice([members.get(name), random.choice(VALUES)])})
    plain = _dump(members)
    return random.choice((plain[:-1] + b"," + twice[1:], twice[:-1] + b"," + plain[1:]))


def _odd_number(random: Random, members: dict[str, Any]) -> bytes:
    number = random.choice(NUMBERS)
    return re.sub(
        r"\b\d{10}\b", lambda found: number.format(found[0]), json.dumps(members), count=random.randint(0, 1)
    ).encode()


def _deep(random: Random, members: dict[str, Any]) -> bytes:
    depth = random.choice((5, 50, 400, 1200, 2500))
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[", b""), (b'[{"":', b"}]")))
    plain = _dump(members | {random.choice([*members, "x"]): "deep"})
    return plain.replace(b'"deep"', opening * depth + b"1" + closing * depth)


def _not_an_object(random: Random, members: dict[str, Any]) -> bytes:
    plain = _dump(members)
    return random.choice((b"", b"null", b"1", b"[]", b"{}", b"NaN", b"[%b]" % plain, _dump(plain.decode()), plain * 2))


def _junk(random: Random, members: dict[str, Any]) -> bytes:
    before, _, after = _slice(random, json.dumps(members))
    return before.encode() + random.choice(JUNK) + after.encode()


def _other_encoding(random: Random, members: dict[str, Any]) -> bytes:
    return json.dumps(members).encode(random.choice(ENCODINGS))


Spelling = Callable[[Random, dict[str, Any]], bytes]
SPELLINGS: Final[list[Spelling]] = [_loose, _loose, _twice, _odd_number, _deep, _not_an_object, _junk, _other_encoding]


def fuzz(algorithm: str, mutations: int, seed: int) -> Counter[str]:
    """Examine so many texts; how often which came of what."""
    service = Service(algorithm)
    fuzzer = Fuzzer(service, seed)
    counts = Counter[str]()
    for number in range(mutations):
        kind = fuzzer.random.choice([*fuzzer.makers])
        text = fuzzer.makers[kind]()
        try:
            outcome = service.examine(text)
            if outcome != "refused":
                assert kind != "wrong key"
                assert kind != "no key" or text.rpartition(".")[0] in fuzzer.signed
        except BaseException as error:
            error.add_note(f"{algorithm}, seed {seed}, mutation {number}, {kind}: {text!r}")
            raise
        counts[f"{kind}: {outcome}"] += 1
    return counts


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_mutated_token_is_a_bad_token_or_claims_everywhere(algorithm: str) -> None:
    counts = fuzz(algorithm, FEW, seed=0)

    assert min(counts[f"right key: {outcome}"] for outcome in ("accepted", "expired", "refused")) > 10


@pytest.mark.long
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_so_are_a_million(algorithm: str) -> None:
    seed = SystemRandom().getrandbits(32)

    counts = fuzz(algorithm, MANY, seed)

    print(f"{algorithm}, seed {seed}:", *(f"{what} {count:,}" for what, count in sorted(counts.items())), sep="\n  ")
    assert counts.total() == MANY


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(claims=claims_of_any_kind)
@settings(deadline=None, max_examples=40)
def test_signed_claims_verify_elsewhere(algorithm: str, claims: Claims) -> None:
    service = _service(algorithm)

    assert service.elsewhere(service.tokens.sign(claims)) == [claims.model_dump()] * 2


@cache
def _service(algorithm: str) -> Service:
    return Service(algorithm)
