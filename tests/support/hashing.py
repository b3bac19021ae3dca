"""Argon2 as tests watch it, and hashes that it cannot read."""

import threading
from typing import Any

from argon2 import low_level
from argon2.exceptions import VerifyMismatchError

RIGHT = "$argon2id$v=19$m=8,t=1,p=1"
CORRUPT = {
    "empty": "",
    "not a hash": "plain text",
    "not ASCII": "$argon2id$é",
    "another scheme": "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW",
    "unknown type": f"{RIGHT.replace('argon2id', 'argon2x')}$c29tZXNhbHQ$AAAA",
    "cut after the parameters": RIGHT,
    "cut after the salt": f"{RIGHT}$c29tZXNhbHRzYWx0",
    "empty digest": f"{RIGHT}$c29tZXNhbHRzYWx0$",
    "short digest": f"{RIGHT}$c29tZXNhbHRzYWx0$AA",
    "short salt": f"{RIGHT}$AA$AAAAAAAAAAAAAAAAAAAAAA",
    "not base64": f"{RIGHT}$!!!!!!!!!!!$AAAAAAAAAAAAAAAAAAAAAA",
    "no parameters": "$argon2id$v=19$c29tZXNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAA",
    "too little memory": f"{RIGHT.replace('m=8', 'm=1')}$c29tZXNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAA",
    "no passes": f"{RIGHT.replace('t=1', 't=0')}$c29tZXNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAA",
    "no lanes": f"{RIGHT.replace('p=1', 'p=0')}$c29tZXNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAA",
    "associated data": f"{RIGHT},data=c29tZQ$c29tZXNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAA",
}


class Library:
    """argon2's own `verify_secret`, with the costs that were worked off, the threads, and a gate that holds it up."""

    def __init__(self) -> None:
        self.work: list[bytes] = []
        self.threads: set[int] = set()
        self.go = threading.Event()
        self.go.set()
        self._verify = low_level.verify_secret

    def verify_secret(self, stored: bytes, secret: bytes, kind: low_level.Type) -> Any:
        self.threads.add(threading.get_ident())
        self.go.wait()
        cost = b"$".join(stored.split(b"$")[:4])
        try:
            is_right = self._verify(stored, secret, kind)
        except VerifyMismatchError:
            self.work.append(cost)
            raise
        self.work.append(cost)
        return is_right
