"""Hostile input as HTTP requests, byte by byte.

`<token>` and `<task>` stand for the access token and the task of the user who sends them.
"""

from collections.abc import Mapping
from functools import partial
from urllib.parse import quote_plus

from tests.support.accounts import PASSWORD
from tests.support.hostile import BAD_FORMS, BAD_IDS, BAD_JSON, BAD_LIMITS, BAD_TIMES, CANARY

MIB = 1024 * 1024

HOST = b"Host: tasks.example"
BEARER = b"Authorization: Bearer <token>"
JSON = b"Content-Type: application/json"
FORM = b"Content-Type: application/x-www-form-urlencoded"
MULTIPART = b"Content-Type: multipart/form-data; boundary=x"
CHUNKED = b"Transfer-Encoding: chunked"


def head(method: bytes, target: bytes, *lines: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    start = b"%b %b %b" % (method, target, version)
    return b"\r\n".join([start, HOST, b"X-Canary: " + CANARY, *lines, b"", b""])


def request(method: bytes, target: bytes, *lines: bytes, body: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return head(method, target, *lines, b"Content-Length: %d" % len(body), version=version) + body


def chunks(body: bytes, size: int = 65_536) -> bytes:
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def get(target: bytes, *lines: bytes) -> bytes:
    return head(b"GET", target, BEARER, *lines)


def task(body: bytes, content_type: bytes = JSON) -> bytes:
    return request(b"POST", b"/tasks/", BEARER, content_type, body=body)


def change(body: bytes) -> bytes:
    return request(b"PATCH", b"/tasks/<task>", BEARER, JSON, body=body)


def user(body: bytes, content_type: bytes = JSON) -> bytes:
    return request(b"POST", b"/users", content_type, body=body)


def form(body: bytes, content_type: bytes = FORM, target: bytes = b"/auth/token") -> bytes:
    return request(b"POST", target, content_type, body=body)


def part(name: bytes, value: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name, value)


def multipart(*parts: bytes, content_type: bytes = MULTIPART) -> bytes:
    return form(b"".join(parts) + b"--x--\r\n", content_type)


revoke = partial(form, target=b"/auth/revoke")
introspect = partial(form, target=b"/auth/introspect")

LIVE = head(b"GET", b"/health/live")
READY = head(b"GET", b"/health/ready")
ADA = (b"username=ada", b"password=" + quote_plus(PASSWORD).encode())
LOGIN = form(b"&".join(ADA))
CREDENTIALS = part(b"username", b"ada") + part(b"password", PASSWORD.encode())


REFUSED: dict[str, dict[str, tuple[bytes, int]]] = {
    **{row: {name: (task(bad.body), 422) for name, bad in cases.items()} for row, cases in BAD_JSON.items()},
    "in a change": {row: (change(next(iter(cases.values())).body), 422) for row, cases in BAD_JSON.items()},
    "NUL and surrogates elsewhere": {
        "NUL in a password": (user(rb'{"username": "bob", "password": "canary7q\u0000"}'), 422),
        "NUL in a username": (user(rb'{"username": "canary7q\u0000", "password": "canary7q12"}'), 422),
        "surrogate in a password": (user(rb'{"username": "bob", "password": "canary7q\ud800"}'), 422),
        "surrogate in an address": (
            user(rb'{"username": "bob", "password": "canary7q12", "email": "\ud800@example.com"}'),
            422,
        ),
        "NUL in the query": (get(b"/tasks/?cursor=canary7q%00"), 422),
        "NUL in a filter": (get(b"/tasks/?status=%00canary7q"), 422),
        "NUL in an unknown parameter": (get(b"/tasks/?canary7q=%00"), 422),
        "surrogate in the query": (get(b"/tasks/?cursor=canary7q%ED%A0%80"), 422),
        "NUL in the query of a form": (form(b"&".join(ADA), target=b"/auth/token?canary7q=%00"), 400),
    },
    "Content-Encoding": {
        **{
            f"{coding!r}": (
                request(
                    b"POST", b"/tasks/", BEARER, JSON, b"Content-Encoding: " + coding, body=b'{"title": "canary7q"}'
                ),
                415,
            )
            for coding in (b"gzip", b"deflate", b"br", b"GZIP", b"canary7q", b"identity, gzip")
        },
        "in two lines": (
            request(
                b"POST",
                b"/users",
                JSON,
                b"Content-Encoding: identity",
                b"Content-Encoding: gzip",
                body=b'{"title": "canary7q"}',
            ),
            415,
        ),
        "chunked": (
            head(b"POST", b"/tasks/", BEARER, JSON, CHUNKED, b"Content-Encoding: gzip")
            + chunks(b'{"title": "canary7q"}'),
            415,
        ),
        "of a form": (request(b"POST", b"/auth/token", FORM, b"Content-Encoding: gzip", body=b"canary7q=1"), 415),
    },
    "invalid UTF-8 in a form": {
        **{name: (form(body), 400) for name, body in BAD_FORMS.items()},
        **{f"{name}, to be revoked": (revoke(body), 400) for name, body in BAD_FORMS.items()},
        **{f"{name}, to be introspected": (introspect(body), 400) for name, body in BAD_FORMS.items()},
        "multipart": (multipart(part(b"username", b"canary7q\xff"), part(b"password", b"x")), 400),
        "multipart, in a name": (multipart(CREDENTIALS, part(b"canary7q\xff", b"x")), 400),
        "multipart, NUL": (multipart(part(b"username", b"canary7q\0"), part(b"password", b"x")), 400),
        "multipart, surrogate": (multipart(part(b"username", b"canary7q\xed\xa0\x80"), part(b"password", b"x")), 400),
    },
    "%FF in the query": {
        "value": (get(b"/tasks/?cursor=canary7q%FF"), 422),
        "name": (get(b"/tasks/?canary7q%FF=1"), 422),
        "over-long": (get(b"/tasks/?cursor=canary7q%C0%AF"), 422),
        "on a form": (form(b"&".join(ADA), target=b"/auth/token?canary7q=%FF"), 400),
        "in an unknown path": (get(b"/canary7q%FF"), 404),
    },
    "nesting 100,000": {"closed": (task(b'{"title": %b%b}' % (b"[" * 100_000, b"]" * 100_000)), 413)},
    "duplicate names in an account": {
        "username": (user(b'{"username": "bob", "username": "canary7q", "password": "canary7q12"}'), 422),
        "password": (user(b'{"username": "bob", "password": "canary7q12", "password": "canary7q13"}'), 422),
    },
    "text/plain or no content type": {
        **{
            f"{name!r} for a task": (task(b'{"title": "canary7q"}', b"Content-Type: " + name), 415)
            for name in (b"text/plain", b"", b"application/x-www-form-urlencoded", b"application/jsonp", b"\xff")
        },
        "none for a task": (request(b"POST", b"/tasks/", BEARER, body=b'{"title": "canary7q"}'), 415),
        "none for an account": (request(b"POST", b"/users", body=b'{"username": "canary7q"}'), 415),
        "none for a form": (request(b"POST", b"/auth/token", body=b"&".join(ADA)), 400),
        **{
            f"{name!r} for a form": (form(b"&".join(ADA), b"Content-Type: " + name), 400)
            for name in (b"text/plain", b"", b"application/json", b"multipart/mixed; boundary=x", b"\xff")
        },
    },
    "ids": {
        **{name: (get(b"/tasks/" + id_), 422) for name, id_ in BAD_IDS.items()},
        **{f"{name}, to be deleted": (head(b"DELETE", b"/tasks/" + id_, BEARER), 422) for name, id_ in BAD_IDS.items()},
        **{
            f"{name}, of a session": (head(b"DELETE", b"/auth/sessions/" + id_, BEARER), 422)
            for name, id_ in BAD_IDS.items()
        },
        "nobody's": (get(b"/tasks/00000000-0000-0000-0000-000000000000"), 404),
        "a slash behind": (get(b"/tasks/<task>/"), 404),
    },
    "limit": {
        f"{value[:20]!r} of {path!r}": (get(path + b"?limit=" + value), 422)
        for value in BAD_LIMITS
        for path in (b"/tasks/", b"/auth/sessions")
    },
    "q=%25 with LIKE": {"status": (get(b"/tasks/?status=%25"), 422), "sort": (get(b"/tasks/?sort=%25"), 422)},
    "cursor": {
        f"{value!r}": (get(b"/tasks/?cursor=" + value), 422)
        for value in (b"canary7q", b"", b"%25", b"e30=", b"W10=", b"W1tdXQ==", b"A" * 600, b"NaN", b"bnVsbA==")
    },
    "times": {
        **{name: (task(b'{"title": "canary7q", "due_at": "%b"}' % time), 422) for name, time in BAD_TIMES.items()},
        **{f"{name}, in a change": (change(b'{"due_at": "%b"}' % time), 422) for name, time in BAD_TIMES.items()},
        **{
            f"{name}, as a filter": (get(b"/tasks/?due_before=" + time.replace(b"+", b"%2B")), 422)
            for name, time in BAD_TIMES.items()
        },
        **{
            f"the number {number!r}": (task(b'{"title": "canary7q", "due_at": %b}' % number), 422)
            for number in (b"1764504000", b"1.7e9", b"-1e11", b"0", b"true", b"1e400")
        },
    },
    "form: the same field twice": {
        "username": (form(b"&".join([*ADA, b"username=canary7q"])), 400),
        "the same value": (form(b"&".join([*ADA, *ADA])), 400),
        "password": (form(b"&".join([b"password=canary7q", *ADA])), 400),
        "escaped": (form(b"&".join([*ADA, b"%75sername=canary7q"])), 400),
        "an unknown one": (form(b"&".join([*ADA, b"canary7q=1", b"canary7q=2"])), 400),
        "token": (revoke(b"token=canary7q&token=canary7q"), 400),
        "multipart": (multipart(CREDENTIALS, part(b"username", b"canary7q")), 400),
    },
    "form: empty username": {
        "empty": (form(b"username=&password=canary7q"), 400),
        "no value": (form(b"username&password=canary7q"), 400),
        "none": (form(b"password=canary7q"), 400),
        "no password": (form(b"username=canary7q&password="), 400),
        "nothing": (form(b""), 400),
        "in the query": (form(b"", target=b"/auth/token?" + b"&".join(ADA)), 400),
        "multipart": (multipart(part(b"username", b""), part(b"password", b"canary7q")), 400),
    },
    "form: long": {
        "a name of 300": (form(b"username=%b&password=canary7q" % (b"canary7q" * 40)), 401),
        "a name of 9 kB": (form(b"username=%b&password=canary7q" % (b"a" * 9_000)), 400),
        "a name of 1 MB": (form(b"username=%b&password=canary7q" % (b"a" * 1_000_000)), 413),
        "a field's name of 9 kB": (form(b"&".join([*ADA, b"a" * 9_000 + b"=1"])), 400),
        "20,000 fields": (form(b"&".join([*ADA, *(b"%d=" % number for number in range(20_000))])), 400),
        "100,000 fields": (form(b"&".join([*ADA, *(b"%d=" % number for number in range(100_000))])), 413),
        "2,000 parts": (multipart(CREDENTIALS, *(part(b"%d" % number, b"") for number in range(2_000))), 400),
        "a part of 9 kB": (multipart(CREDENTIALS, part(b"canary7q", b"a" * 9_000)), 400),
        "a part of 2 MB": (multipart(CREDENTIALS, part(b"canary7q", b"a" * 2_000_000)), 413),
        "a part with 1,000 headers": (multipart(CREDENTIALS, b"--x\r\n" + b"A: b\r\n" * 1_000 + b"\r\n1\r\n"), 400),
    },
    "multipart": {
        "no boundary": (multipart(CREDENTIALS, content_type=b"Content-Type: multipart/form-data"), 400),
        "an empty boundary": (
            multipart(CREDENTIALS, content_type=b"Content-Type: multipart/form-data; boundary="),
            400,
        ),
        "another boundary": (
            multipart(CREDENTIALS, content_type=b"Content-Type: multipart/form-data; boundary=y"),
            400,
        ),
        "a boundary in pieces": (
            multipart(CREDENTIALS, content_type=b"Content-Type: multipart/form-data; boundary*=x; boundary*0=x"),
            400,
        ),
        "a boundary of 5,000 digits": (
            multipart(CREDENTIALS, content_type=b"Content-Type: multipart/form-data; boundary*%b=x" % (b"1" * 5_000)),
            400,
        ),
        "another charset": (
            multipart(CREDENTIALS, part(b"x", b"\xe9"), content_type=MULTIPART + b"; charset=latin-1"),
            400,
        ),
        "garbage": (form(b"canary7q" * 20 + b"--x--", MULTIPART), 400),
        "no name": (multipart(CREDENTIALS, b"--x\r\nContent-Disposition: form-data\r\n\r\ncanary7q\r\n"), 400),
        "no header": (multipart(CREDENTIALS, b"--x\r\n\r\ncanary7q\r\n"), 400),
        "cut in the middle": (
            form(CREDENTIALS + b'--x\r\nContent-Disposition: form-data; name="scope"\r\n', MULTIPART),
            400,
        ),
        "cut before the end": (form(CREDENTIALS, MULTIPART), 400),
        "cut in its last dashes": (form(CREDENTIALS + b"--x-", MULTIPART), 400),
        "a file as username": (
            multipart(part(b'username"; filename="canary7q', b"ada"), part(b"password", b"canary7q")),
            400,
        ),
    },
    "bearer header with bytes over 0x7F": {
        name: (head(b"GET", b"/tasks/", b"Authorization: " + value), 401)
        for name, value in {
            "alone": b"Bearer \xff",
            "UTF-8": "Bearer canary7q\N{SNOWMAN}".encode(),
            "in a token": BEARER.partition(b" ")[2] + b"\xe9",
            "before a token": b"Bearer \xa0<token>",
        }.items()
    },
}


def both(data: bytes, httptools: int, h11: int | None = None) -> tuple[bytes, Mapping[str, int]]:
    """Bytes, and the status that each of the two parsers answers. One status is for both."""
    return data, {"httptools": httptools, "h11": h11 or httptools}


def framed(*lines: bytes, body: bytes = b'{"title": "canary7q"}') -> bytes:
    """A task that says of its length what it likes."""
    return head(b"POST", b"/tasks/", BEARER, JSON, *lines) + body


def sized(lines: int, size: int) -> tuple[bytes, ...]:
    return tuple(b"X-%d: %b" % (number, b"a" * size) for number in range(lines))


TASK = b'{"title": "canary7q"}'
NO_CHUNKS = {
    "no number": b"zz\r\n{}\r\n0\r\n\r\n",
    "negative": b"-2\r\n{}\r\n0\r\n\r\n",
    "with 0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "24 digits": b"f" * 24 + b"\r\n{}\r\n0\r\n\r\n",
    "smaller than the chunk": b"2\r\ncanary7q\r\n0\r\n\r\n",
    "none behind a good one": chunks(TASK).removesuffix(b"0\r\n\r\n") + b"canary7q\r\n",
}
NO_LENGTHS = {
    "negative": b"-1",
    "with a sign": b"+2",
    "no number": b"canary7q",
    "a fraction": b"2.0",
    "hexadecimal": b"0x2",
    "30 digits": b"9" * 30,
    "empty": b"",
}
HEADS: dict[str, dict[str, tuple[bytes, Mapping[str, int]]]] = {
    "header 60 kB": {
        "one": both(get(b"/tasks/", *sized(1, 60_000)), 431),
        "many": both(get(b"/tasks/", *sized(100, 600)), 431),
        "on a form": both(head(b"POST", b"/auth/token", FORM, *sized(1, 60_000)), 431),
        "a token of 9 kB": both(head(b"GET", b"/tasks/", b"Authorization: Bearer " + b"a" * 9_000), 431),
        "in a cookie": both(get(b"/tasks/", b"Cookie: " + b"a" * 60_000), 431),
    },
    "5,000 headers": {
        "long": both(get(b"/tasks/", *sized(5_000, 3)), 431),
        "short": both(get(b"/tasks/", *[b"X:a"] * 5_000), 200),
    },
    "URL 100 kB": {
        "in the query": both(get(b"/tasks/?cursor=" + b"a" * 100_000), 400, 414),
        "in the path": both(get(b"/tasks/" + b"a" * 100_000), 400, 414),
        "9 kB in the query": both(get(b"/tasks/?cursor=" + b"a" * 9_000), 414),
        "9 kB in the path": both(get(b"/tasks/" + b"a" * 9_000), 414),
        "9 kB of escapes": both(get(b"/tasks/" + b"%41" * 3_000), 414),
        "9 kB on a form": both(form(b"&".join(ADA), target=b"/auth/token?" + b"a" * 9_000), 414),
    },
    "Host": {
        "none": both(b"GET /tasks/ HTTP/1.1\r\n\r\n", 400),
        "none on a form": both(b"POST /auth/token HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),
        "two": both(get(b"/tasks/", b"Host: canary7q.example"), 400),
        "the same twice": both(get(b"/tasks/", HOST), 400),
        **{
            f"{name!r}": both(b"GET /tasks/ HTTP/1.1\r\nHost: %b\r\n\r\n" % name, 400)
            for name in (b"canary7q.example", b"[", b"", b"tasks.example.", b"tasks.example, tasks.example", b"\xff")
        },
        "another for health": both(b"GET /health/ready HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", 200),
        "upper case, and a port": both(b"GET /tasks/ HTTP/1.1\r\nHost: TASKS.example:8000\r\n\r\n", 200),
    },
    "Content-Length and Transfer-Encoding": {
        "both": both(framed(CHUNKED, b"Content-Length: 4", body=chunks(b"canary7q")), 400, 422),
        "the length first": both(framed(b"Content-Length: 4", CHUNKED, body=chunks(b"canary7q")), 400, 422),
        "chunked twice": both(framed(CHUNKED, CHUNKED, body=chunks(TASK)), 400),
        "not chunked": both(framed(b"Transfer-Encoding: gzip", body=chunks(TASK)), 400),
        "not quite chunked": both(framed(b"Transfer-Encoding: xchunked", body=chunks(TASK)), 400),
        "gzip, then chunked": both(framed(b"Transfer-Encoding: gzip, chunked", body=chunks(TASK)), 501, 400),
        "gzip, then chunked, in two lines": both(
            framed(b"Transfer-Encoding: gzip", CHUNKED, body=chunks(TASK)), 501, 400
        ),
        "chunked, then not": both(framed(b"Transfer-Encoding: chunked, gzip", body=chunks(TASK)), 400),
        "a space before the colon": both(framed(b"Transfer-Encoding : chunked", body=chunks(TASK)), 400),
    },
    "two Content-Lengths": {
        "that differ": both(framed(b"Content-Length: 2", b"Content-Length: 3"), 400),
        "in one line": both(framed(b"Content-Length: 2, 3"), 400),
    },
    "Content-Length": {
        **{name: both(framed(b"Content-Length: " + value), 400) for name, value in NO_LENGTHS.items()},
        "of a petabyte": both(framed(b"Content-Length: 1000000000000000", b"Connection: close", body=b""), 413),
        "short of the body": both(framed(b"Content-Length: 10", b"Connection: close", body=TASK[:10]), 422),
    },
    "chunk sizes": {name: both(framed(CHUNKED, body=body), 400) for name, body in NO_CHUNKS.items()},
    "target": {
        "absolute": both(head(b"GET", b"http://tasks.example/health/live"), 200, 404),
        "absolute, and nowhere": both(head(b"GET", b"http://"), 400, 404),
        "*": both(head(b"GET", b"*"), 404),
        "OPTIONS *": both(head(b"OPTIONS", b"*"), 204),
        "an authority": both(head(b"CONNECT", b"canary7q.example:443"), 400, 404),
        "relative": both(head(b"GET", b"canary7q"), 400, 404),
        "empty": both(head(b"GET", b""), 400),
        "two slashes": both(head(b"GET", b"//canary7q/tasks/"), 404),
        "two dots": both(head(b"GET", b"/tasks/../health/live"), 404),
        "raw 0xFF": both(head(b"GET", b"/canary7q\xff"), 400),
        "raw UTF-8": both(head(b"GET", "/canary7q\N{SNOWMAN}".encode()), 400),
        "raw 0xFF in the query": both(head(b"GET", b"/tasks/?canary7q=\xff"), 400),
        "raw NUL": both(head(b"GET", b"/canary7q\0"), 400),
        "a space": both(head(b"GET", b"/canary7q /tasks/"), 400),
    },
    "version": {
        "1.0": both(head(b"GET", b"/tasks/", version=b"HTTP/1.0"), 200),
        "1.0 with a body": both(request(b"POST", b"/users", JSON, body=b'{"canary7q": 1}', version=b"HTTP/1.0"), 422),
        "none": both(b"GET /canary7q\r\n\r\n", 400),
        "9": both(head(b"GET", b"/canary7q", version=b"HTTP/9"), 400),
        "lower case": both(head(b"GET", b"/canary7q", version=b"http/1.1"), 400),
        "another protocol": both(head(b"GET", b"/canary7q", version=b"XTTP/1.1"), 400),
        "TLS": both(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500, 400),
    },
    "unknown methods": {
        **{
            name.decode(): both(head(name, b"/tasks/"), 405)
            for name in (b"PUT", b"TRACE", b"OPTIONS", b"PROPFIND", b"PURGE", b"M-SEARCH", b"QUERY")
        },
        **{
            name.decode(): both(head(name, b"/tasks/"), 400, 405)
            for name in (b"CONNECT", b"FOO", b"get", b"X" * 10_000)
        },
        "0xFF": both(head(b"G\xffT", b"/tasks/"), 400),
        "on a form": both(head(b"PUT", b"/auth/token"), 405),
    },
    "headers": {
        "NUL": both(get(b"/tasks/", b"X: canary7q\0"), 400),
        "carriage return": both(get(b"/tasks/", b"X: canary7q\rX"), 400),
        "no colon": both(get(b"/tasks/", b"canary7q"), 400),
        "a space in a name": both(get(b"/tasks/", b"canary 7q: 1"), 400),
        "0xFF in a name": both(get(b"/tasks/", b"canary7q\xff: 1"), 400),
        "0xFF in a value": both(get(b"/tasks/", b"X: \xff", b"User-Agent: \xff\x80", b"Accept: \xff"), 200),
        "0xFF in an idempotency key": both(
            request(b"POST", b"/tasks/", BEARER, JSON, b"Idempotency-Key: \xff", body=TASK), 422
        ),
        "0xFF in an ETag": both(get(b"/tasks/<task>", b'If-None-Match: "\xff", canary7q'), 200),
        "two Authorizations": both(get(b"/tasks/", BEARER), 400),
    },
    "Expect": {
        "another than to continue": both(request(b"POST", b"/users", JSON, b"Expect: canary7q", body=b"canary7q"), 422),
        "to continue, without a body": both(get(b"/tasks/", b"Expect: 100-continue"), 200),
    },
    "a body on GET": {
        "with its length": both(request(b"GET", b"/tasks/", BEARER, JSON, body=TASK), 200),
        "chunked": both(get(b"/tasks/", CHUNKED) + chunks(TASK), 200),
        "of 1 MB": both(request(b"GET", b"/tasks/", BEARER, body=b"a" * MIB), 413),
        "refused": both(request(b"GET", b"/canary7q", body=b"canary7q"), 404),
    },
    "an offer to upgrade": {
        "to HTTP/2": both(get(b"/tasks/", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"), 200),
        "with a body": both(
            request(b"POST", b"/users", JSON, b"Connection: Upgrade", b"Upgrade: canary7q", body=LIVE), 422
        ),
    },
}


WHOLE = {
    "JSON": task(TASK),
    "chunked": framed(CHUNKED, body=chunks(TASK, 5)),
    "form": form(b"&".join(ADA)),
    "multipart": multipart(CREDENTIALS),
}


VALID = [
    *WHOLE.values(),
    user(b'{"username": "bob", "password": "correct horse battery", "email": "bob@example.com"}'),
    change(b'{"title": "Water", "status": "done", "due_at": "2026-11-23T09:00:00+01:00", "is_public": true}'),
    request(b"PUT", b"/users/me/password", BEARER, JSON, body=b'{"current_password": "x", "new_password": "horses12"}'),
    revoke(b"token=canary7q&token_type_hint=refresh_token"),
    request(b"POST", b"/auth/introspect", BEARER, FORM, body=b"token=<token>"),
    form(b"grant_type=refresh_token&refresh_token=<token>&scope=tasks%3Aread"),
    get(b"/tasks/?limit=5&status=todo&due_before=2026-11-23T09%3A00%3A00Z&sort=-due_at"),
    get(b"/tasks/<task>", b'If-None-Match: "1", W/"2"'),
    head(b"DELETE", b"/tasks/0193572c-0000-7000-8000-000000000000", BEARER, b'If-Match: "9"'),
    get(b"/auth/sessions?limit=3", b"User-Agent: x", b"X-Request-ID: 1"),
]
