"""Run `python -m …` under the system call filter and the memory line of the README's unit. Another call kills it."""

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator

from tests.support.readme import DEPLOY, blocks

ALLOW, KILL = 0x7FFF0000, 0x80000000
NO_NEW_PRIVS, DENY_WRITE_EXECUTE = 38, 65  # options of prctl


def system_calls(name: str) -> Iterator[str]:
    """Yield the system calls of a set of systemd's, or the one of that name."""
    if not name.startswith("@"):
        yield name
        return
    shown = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True)
    for line in shown.stdout.splitlines()[1:]:
        word = line.strip()
        if word and not word.startswith("#"):
            yield from system_calls(word)


def allowed() -> set[str]:
    [unit] = [block for block in blocks("ini", "Deployment", DEPLOY) if "app serve" in block]
    calls = set(system_calls("@default"))
    for sign, names in re.findall("^SystemCallFilter=(~?)(.+)$", unit, re.MULTILINE):
        named = {call for name in names.split() for call in system_calls(name)}
        calls = calls - named if sign else calls | named
    return calls | ({"fchown"} if os.geteuid() == 0 else set())  # SQLite calls it for root alone


def confine() -> None:
    """Confine this process and its children. That needs no privileges."""
    calls = allowed()
    libc, seccomp = ctypes.CDLL(None, use_errno=True), ctypes.CDLL("libseccomp.so.2")
    for option in NO_NEW_PRIVS, DENY_WRITE_EXECUTE:
        if libc.prctl(option, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(KILL)))
    for call in calls:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number >= 0 and seccomp.seccomp_rule_add(rules, ctypes.c_uint32(ALLOW), number, 0):
            raise OSError(f"no rule for {call}")
    if seccomp.seccomp_load(rules):
        raise OSError("the rules cannot be loaded")


if __name__ == "__main__":
    confine()
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
