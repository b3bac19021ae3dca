"""Races of many requests through two processes on one database: prints the outcome of each, and whether it is right.

    python -m tests.benchmarks.races
    python -m tests.benchmarks.races 100

It ends with exit code 1 if an invariant does not hold. Two processes queue 32 logins for each core and process. More
logins at once are 503, and break the invariant.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx2
from sqlalchemy import URL, make_url

from tests.conftest import SECRET, execute, migrate, new_database
from tests.support import postgres
from tests.support.accounts import PASSWORD, bearer
from tests.support.processes import services
from tests.support.races import all_at_once, each_at_once, log_in, register, session_of


class Place(NamedTuple):
    """Two services on one database, and how many requests they get at once."""

    database: URL
    urls: list[str]
    at_once: int

    def rows(self, what: str) -> int:
        """Count the rows with `SELECT count(*)`."""
        ((number,),) = execute(self.database, f"SELECT count(*) FROM {what}")
        return int(number)


class Outcome(NamedTuple):
    statuses: Counter[int]
    expected: dict[int, int]
    is_left_right: bool
    """Whether what the race left behind is what it should be."""

    @property
    def is_held(self) -> bool:
        return self.is_left_right and self.statuses == {status: n for status, n in self.expected.items() if n}


Race = Callable[[Place], Outcome]


def statuses_of(answers: list[httpx2.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def refresh(place: Place) -> Outcome:
    user = register(place.urls[0])
    form = {"grant_type": "refresh_token", "refresh_token": log_in(place.urls[0], user)["refresh_token"]}

    answers = all_at_once(place.urls, "POST", "/auth/token", place.at_once, data=form)

    successors = {answer.json().get("refresh_token") for answer in answers}
    generations = place.rows(f"sessions WHERE generation = 2 AND ended_at IS NULL AND {owned_by(user)}")
    return Outcome(statuses_of(answers), {200: place.at_once}, len(successors) == generations == 1)


def log_in_at_once(place: Place) -> Outcome:
    user = register(place.urls[0])

    answers = all_at_once(place.urls, "POST", "/auth/token", place.at_once, data=user)

    sessions = {session_of(answer.json()) for answer in answers if answer.status_code == 200}
    live = place.rows(f"sessions WHERE ended_at IS NULL AND {owned_by(user)}")
    return Outcome(statuses_of(answers), {200: place.at_once}, len(sessions) == live == place.at_once)


def change_password(place: Place) -> Outcome:
    user = register(place.urls[0])
    headers = bearer(log_in(place.urls[0], user)["access_token"])
    passwords = [f"another horse battery {n}" for n in range(place.at_once)]
    bodies = [{"current_password": PASSWORD, "new_password": password} for password in passwords]

    requests = [{"json": body, "headers": headers} for body in bodies]
    answers = each_at_once(place.urls, "PUT", "/users/me/password", requests)

    tries = [{"data": user | {"password": password}} for password in [PASSWORD, *passwords]]
    is_let_in = [answer.status_code == 200 for answer in each_at_once(place.urls, "POST", "/auth/token", tries)]
    is_changed = [answer.status_code == 204 for answer in answers]
    return Outcome(statuses_of(answers), {204: 1, 403: place.at_once - 1}, is_let_in == [False, *is_changed])


def delete_account(place: Place) -> Outcome:
    user = register(place.urls[0])
    headers = bearer(log_in(place.urls[0], user)["access_token"])

    answers = all_at_once(place.urls, "DELETE", "/users/me", place.at_once, headers=headers)

    left = place.rows(f"users WHERE username = '{user['username']}'")
    return Outcome(statuses_of(answers), {204: 1, 401: place.at_once - 1}, left == 0)


def delete_task(place: Place) -> Outcome:
    user = register(place.urls[0])
    headers = bearer(log_in(place.urls[0], user)["access_token"])
    answer = httpx2.post(f"{place.urls[0]}/tasks/", json={"title": "Gone"}, headers=headers).raise_for_status()
    task = answer.json()["id"]

    answers = all_at_once(place.urls, "DELETE", f"/tasks/{task}", place.at_once, headers=headers)

    left = place.rows(f"tasks WHERE id = '{task}'")
    return Outcome(statuses_of(answers), {204: 1, 404: place.at_once - 1}, left == 0)


def owned_by(user: dict[str, str]) -> str:
    return f"user_id = (SELECT id FROM users WHERE username = '{user['username']}')"


RACES: dict[str, tuple[Race, str]] = {
    "refresh one token": (refresh, "all 200, one successor, one live session"),
    "log in": (log_in_at_once, "all 200, a session each"),
    "change the password": (change_password, "one 204, the others 403; only its password is good"),
    "delete the account": (delete_account, "one 204, the others 401"),
    "delete one task": (delete_task, "one 204, the others 404"),
}
ROW = "{:<20} {:<11} {:>4}  {:<18} {:<51} {:<4} {:>4}"


def race(database: URL, count: int) -> Iterator[tuple[str, str, Outcome]]:
    """Run each race on a database."""
    asyncio.run(migrate(database))
    settings = {"database_url": database.render_as_string(hide_password=False), "secret_key": SECRET}
    with services(2, **settings, login_failures=3 * count + 3) as urls:
        for operation, (run, invariant) in RACES.items():
            yield operation, invariant, run(Place(database, urls, count))


@contextmanager
def databases() -> Iterator[Iterator[URL]]:
    """An empty SQLite file, and an empty database of a PostgreSQL server of our own."""
    with tempfile.TemporaryDirectory() as folder, postgres.server() as server, new_database(make_url(server)) as url:
        yield iter([make_url(f"sqlite:///{folder}/tasks.db"), url])


def main(count: int) -> bool:
    """Print the table; whether every invariant is held."""
    all_held = True
    print(ROW.format("operation", "database", "N", "statuses", "invariant", "held", "5xx"))
    with databases() as urls:
        for database in urls:
            for operation, invariant, outcome in race(database, count):
                statuses = ", ".join(f"{status}: {n}" for status, n in sorted(outcome.statuses.items()))
                faults = sum(n for status, n in outcome.statuses.items() if status >= 500)
                held = "yes" if outcome.is_held else "NO"
                print(ROW.format(operation, database.drivername, count, statuses, invariant, held, faults), flush=True)
                all_held &= outcome.is_held
    return all_held


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Many at once, through two processes on one database.")
    parser.add_argument("count", nargs="?", type=int, default=50, help="requests at once (50)")
    sys.exit(0 if main(parser.parse_args().count) else 1)
