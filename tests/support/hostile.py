"""Hostile input: each kind once, for the tests in process and for those over the wire."""

FORGED = '{"event": "forged"}'
EVIL = {
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
