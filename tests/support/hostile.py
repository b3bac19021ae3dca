"""Hostile input, each kind once. Tests send it in process to every operation, and over the wire to a real server."""

import json
from typing import NamedTuple


class BadJson(NamedTuple):
    """A body for POST /tasks, and the field that the answer names as its fault; none is the body as a whole."""

    body: bytes
    field: str | None = None

    def of(self, field: str) -> bytes:
        """The same with another field in place of `title`."""
        return self.body.replace(b'"title"', b'"%b"' % field.encode())


CANARY = b"canary7q"
NO_NUMBERS = [b"NaN", b"Infinity", b"-Infinity"]
NUMBERS_OUT_OF_RANGE = [b"1e999", b"-1e999"]

BAD_JSON: dict[str, dict[str, BadJson]] = {
    "NUL": {
        "escaped": BadJson(rb'{"title": "canary7q\u0000"}', "title"),
        "raw": BadJson(b'{"title": "canary7q\0"}'),
        "after a newline": BadJson(rb'{"title": "canary7q\n\u0000"}', "title"),
        "in a description": BadJson(rb'{"title": "canary7q", "description": "\u0000"}', "description"),
        "in a name": BadJson(rb'{"title": "canary7q", "\u0000": 1}'),
    },
    "lone surrogate": {
        "escaped": BadJson(rb'{"title": "canary7q\ud800"}', "title"),
        "the wrong way round": BadJson(rb'{"title": "\ude00\ud83dcanary7q"}', "title"),
        "raw": BadJson(b'{"title": "canary7q\xed\xa0\x80"}'),
        "in a description": BadJson(rb'{"title": "canary7q", "description": "\udfff"}', "description"),
        "for a status": BadJson(rb'{"title": "canary7q", "status": "\ud800"}', "status"),
        "in a name": BadJson(rb'{"title": "canary7q", "\ud800": 1}'),
    },
    "invalid UTF-8 in JSON": {
        "0xFF": BadJson(b'{"title": "canary7q\xff"}'),
        "over-long": BadJson(b'{"title": "canary7q\xc0\x80"}'),
        "cut": BadJson(b'{"title": "canary7q\xe2\x82"}'),
        "over U+10FFFF": BadJson(b'{"title": "canary7q\xf5\x80\x80\x80"}'),
    },
    "NaN and Infinity": {
        **{f"{value.decode()} as the title": BadJson(b'{"title": %b}' % value) for value in NO_NUMBERS},
        **{f"{value.decode()} as more": BadJson(b'{"title": "canary7q", "x": %b}' % value) for value in NO_NUMBERS},
    },
    "numbers out of range": {
        f"{value.decode()} as {name}": BadJson(body % value, field)
        for value in NUMBERS_OUT_OF_RANGE
        for name, body, field in (
            ("the title", b'{"title": %b}', "title"),
            ("a time", b'{"title": "canary7q", "due_at": %b}', "due_at"),
            ("more", b'{"title": "canary7q", "x": %b}', None),
        )
    },
    "long numbers": {
        **{f"{digits} digits": BadJson(b'{"title": %b}' % (b"9" * digits), "title") for digits in (400, 4_000)},
        **{f"{digits} digits": BadJson(b'{"title": %b}' % (b"9" * digits)) for digits in (5_000, 100_000)},
        "5,000 digits as a time": BadJson(b'{"title": "canary7q", "due_at": %b}' % (b"9" * 5_000)),
        "5,000 digits behind the point": BadJson(b'{"title": 0.%b}' % (b"9" * 5_000), "title"),
        "an exponent of 5,000 digits": BadJson(b'{"title": 1e%b}' % (b"9" * 5_000), "title"),
    },
    "nesting": {
        "200 arrays in a string field": BadJson(b'{"title": %b"canary7q"%b}' % (b"[" * 200, b"]" * 200), "title"),
        "1,000 arrays in a string field": BadJson(b'{"title": %b"canary7q"%b}' % (b"[" * 1_000, b"]" * 1_000)),
        "1,000 objects in a string field": BadJson(b'{"title": %b1%b}' % (b'{"canary7q":' * 1_000, b"}" * 1_000)),
        "1,000 arrays in another": BadJson(b'{"title": "canary7q", "more": %b%b}' % (b"[" * 1_000, b"]" * 1_000)),
        "60,000 arrays, closed": BadJson(b'{"title": %b%b}' % (b"[" * 60_000, b"]" * 60_000)),
        "100,000 arrays, open": BadJson(b"[" * 100_000),
        "behind a string that does not end": BadJson(b'"canary7q' + b"[" * 100_000),
        "60,000 quotes in a string that does not end": BadJson(b'"canary7q' + rb"\"" * 60_000),
    },
    "duplicate names": {
        "the same value": BadJson(b'{"title": "canary7q", "title": "canary7q"}'),
        "another spelling": BadJson(rb'{"title": "canary7q", "\u0074itle": "canary7q"}'),
        "inside": BadJson(b'{"title": "canary7q", "more": {"a": 1, "a": 2}}'),
    },
    "BOM, UTF-16, UTF-32": {
        name: BadJson('{"title": "canary7q"}'.encode(name))
        for name in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
    },
    "no JSON": {
        "nothing": BadJson(b""),
        "something behind": BadJson(b'{"title": "canary7q"} canary7q'),
        "two": BadJson(b'{"title": "canary7q"}{"title": "canary7q"}'),
        "cut": BadJson(b'{"title": "canary7q"'),
        "single quotes": BadJson(b"{'title': 'canary7q'}"),
        "a comma too many": BadJson(b'{"title": "canary7q",}'),
        "a control character": BadJson(b'{"title": "canary7q\n"}'),
    },
    "another shape": {
        "an object in a string field": BadJson(b'{"title": {"canary7q": [1]}}', "title"),
        "an array": BadJson(b'["canary7q"]'),
        "a text": BadJson(b'"canary7q"'),
        "null": BadJson(b"null"),
        "an unknown field": BadJson(b'{"title": "canary7q", "canary7q": "canary7q"}'),
        "200 unknown fields": BadJson(json.dumps({f"canary7q{n}": n for n in range(200)}).encode()),
    },
    "long texts": {"800 characters": BadJson(b'{"title": "%b"}' % (b"canary7q" * 100), "title")},
}

BAD_TIMES = {
    "naive": b"2026-11-23T09:00:00",
    "a day": b"2026-11-23",
    "the last of all": b"9999-12-31T23:59:59-12:00",
    "the first of all": b"0001-01-01T00:00:00+14:00",
    "before 1970": b"1969-12-31T23:59:59Z",
    "a leap second": b"2016-12-31T23:59:60Z",
    "24 o'clock": b"2026-11-23T24:00:00Z",
    "seconds in a string": b"1764504000",
    "a zone of 24 hours": b"2026-11-23T09:00:00+24:00",
}
BAD_IDS = {
    "2^31": b"2147483648",
    "2^63-1": b"9223372036854775807",
    "2^63": b"9223372036854775808",
    "400 digits": b"9" * 400,
    "negative": b"-1",
    "a fraction": b"1.0",
    "with a sign": b"+1",
    "with an underscore": b"1_0",
    "with spaces": b"%201%20",
    "upper case": b"<TASK>",
    "a space before": b"%20<task>",
    "a space behind": b"<task>%20",
    "a newline behind": b"<task>%0A",
    "NUL behind": b"<task>%00",
    "braces": b"{<task>}",
    "a URN": b"urn:uuid:<task>",
    "a quote": b"<task>'",
    "NUL": b"%00",
    "0xFF": b"%FF",
    "lone surrogate": b"%ED%A0%80",
    "no escape": b"%zz",
}
BAD_LIMITS = b"-1 0 101 2147483648 9223372036854775807 9223372036854775808 18446744073709551616".split()
BAD_LIMITS += [b"9" * 5_000, *b"1.5 1e1 NaN Infinity 0x10 %EF%BC%91 canary7q 1%3B".split(), b""]
BAD_FORMS = {
    "escaped": b"username=ada%FF&password=canary7q&token=%FF",
    "raw": b"username=ada\xff&password=canary7q&token=\xff",
    "over-long": b"username=ada%C0%80&password=canary7q&token=%C0%80",
    "cut": b"username=ada%E2%82&password=canary7q&token=%E2%82",
    "in a name": b"username=ada&password=canary7q&token=canary7q&canary7q%FF=1",
    "lone surrogate": b"username=ada%ED%A0%80&password=canary7q&token=%ED%A0%80",
    "NUL": b"username=ada%00&password=canary7q&token=%00",
    "raw NUL": b"username=ada\0&password=canary7q&token=\0",
    "a field twice": b"username=ada&password=canary7q&token=canary7q&canary7q=1&canary7q=2",
}

FORGED = '{"event": "forged"}'
FORGED_LOG_LINES = {
    "CR LF": f"\r\n{FORGED}\r\n",
    "LF": f"\n{FORGED}\n",
    "CR": f"\r{FORGED}",
    "ESC": "\x1b[2K\x1b[1G" + FORGED,
    "U+2028": f"\u2028{FORGED}\u2029",
    "NEL": f"\x85{FORGED}",
    "VT, FF, FS": f"\x0b{FORGED}\x0c{FORGED}\x1c",
    "quotes": '"} {"event": "forged"} {"',
    "backslash": '\\"} {"event": "forged"} {"',
    "override": "\u202e" + FORGED,
}
