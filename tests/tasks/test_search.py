"""`q` on the lists: the tasks that have all of its words, the same ones on both databases."""

import re
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import lru_cache
from typing import Any
from unicodedata import normalize

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.tasks.search import MAX_SORTED
from app.tasks.words import index_text
from tests.conftest import MovableClock, Sql
from tests.support.accounts import Login, create_task, faults, log_in, register, sign_up
from tests.support.task_lists import SORTS, create_many, in_one, walk

MONDAY, TUESDAY = "2026-11-30T12:00:00Z", "2026-12-01T12:00:00Z"


def search(client: TestClient, q: str, login: Login | None = None, path: str = "/tasks/", **query: str) -> list[str]:
    response = client.get(path, params={"q": q, "sort": "created_at"} | query, headers=login.headers if login else None)
    assert response.status_code == 200, response.text
    return [task["title"] for task in response.json()["items"]]


def moment(time: str | None) -> datetime | None:
    return None if time is None else datetime.fromisoformat(time)


def test_a_search_finds_words_of_title_and_description(client: TestClient, clock: MovableClock) -> None:
    ada = sign_up(client)
    texts = {
        "Water the plants": "In the kitchen, and on the balcony.",
        "Buy plants": None,
        "Kitchen": "Paint it; white",
    }
    for title, description in texts.items():
        create_task(client, ada, title, description=description, is_public=True)
        clock.move(seconds=1)
    expected = {
        "water": ["Water the plants"],
        "plants": ["Water the plants", "Buy plants"],
        "kitchen": ["Water the plants", "Kitchen"],
        "plants kitchen": ["Water the plants"],
        "kitchen, PLANTS!": ["Water the plants"],
        "the the the": ["Water the plants"],
        "paint  white": ["Kitchen"],
        "balcony paint": [],
        "plant": ["Water the plants", "Buy plants"],
        "kitchen wat": ["Water the plants"],
        "wat kitchen": [],
        "p": ["Water the plants", "Buy plants", "Kitchen"],
        "lants": [],
        "none": [],
    }

    for path, login in ("/tasks/", ada), ("/tasks/mine", ada), ("/tasks/", None), ("/tasks/public", None):
        assert {q: search(client, q, login, path) for q in expected} == expected


SAME_WORDS = {
    "École": "ECOLE",
    "ecole": "École",
    "E\u0301cole": "\u00e9cole",
    "Straße": "STRASSE",
    "\N{LATIN SMALL LIGATURE FI}nd me": "FIND",
    "\N{FULLWIDTH LATIN CAPITAL LETTER F}ull": "full",
    "\u0130stanbul": "istanbul",
    "ΟΔΟΣ": "οδός",
    "Ёлка": "елка",
    "Version 1.2": "2 1",
    "snake_case": "CASE",
    "it's": "s it",
    "a\u200bb": "b",
    "हिन्दी में": "में",
    "한국어 공부": "공부",
    "牛乳を買う": "買う",
    "ガス代": "ガ",
    "买牛奶milk": "奶 milk",
    "\N{HEAVY BLACK HEART}\ufe0fheart": "heart",
    "w" * 64 + "x": "W" * 64 + "y",
    "\N{MATHEMATICAL FRAKTUR CAPITAL U}\N{MATHEMATICAL FRAKTUR SMALL N}": "un",
    "\N{DESERET CAPITAL LETTER LONG I}": "\N{DESERET SMALL LETTER LONG I}",
    "Łódź": "lodz",
    "lodz": "ŁÓDŹ",
    "Smørrebrød": "smorrebrod",
    "Đorđe": "dorde",
    "Ħal Għaxaq": "ghaxaq hal",
    "Ŧest": "test",
    "\u0131s\u0131rgan": "ISIRGAN",
    "Ægir": "aegir",
    "cœur": "COEUR",
    "Þórður": "thordur",
    "Ŋami": "nami",
    "ƴaƴƙa": "yayka",
    "مُحَمَّدٌ": "محمد",
    "محمد": "مُحَمَّد",
    "كـــتاب": "كتاب",
    "أحمد": "احمد",
    "שָׁלוֹם": "שלום",
    "Land\u00adschaft": "landschaft",
    "landschaft": "land\u00adschaft",
    "نیم\u200cفصل": "نیمفصل",
    "نیمفصل": "نیم\u200cفصل",
    "क्\u200dष": "क्ष",
    "wo\u2060rd": "word",
    "\ufeffword": "word",
    "left\u200eright": "leftright",
    "ซื้อนมวันนี้": "นม",
    "ซื้อนมวันนี": "ซื้อ",
    "วันนี้ซื้อนม": "ซื้อนม",
    "ຊື້ນົມມື້ນີ້": "ນົມ",
    "ទិញទឹកដោះគោ": "ទឹក",
    "នំប៉័ង": "ប៉័ង",
    "နို့ဝယ်ရန်": "ဝယ်",
    "ᥓᥣᥱ": "ᥣ",
    "공부를 하다": "공부",
    "Landingpages update": "landing",
    "Ąžuolas": "azuo",
    "Wiśniewski": "wisniew",
    "x" * 63 + "yz": "X" * 63,
    "x" * 70 + "a": "x" * 70 + "b",
}


def test_case_accents_and_forms_do_not_count(client: TestClient) -> None:
    ada = sign_up(client)
    found = {}
    for title, q in SAME_WORDS.items():
        task = create_task(client, ada, title)
        found[title] = search(client, q, ada)
        client.delete(f"/tasks/{task['id']}", headers=ada.headers)

    assert found == {title: [title] for title in SAME_WORDS}


def test_other_words_are_other_words(client: TestClient) -> None:
    ada = sign_up(client)
    others = {"カス": "ガス", "को": "के", "resume": "resumé x", "12": "2", "ซื้อ": "ซึ้ง", "牛乳": "牛奶"}
    others |= {"cafe\u200bbar": "cafebar", "ab cd": "bcd", "x" * 63 + "y": "x" * 64}
    for title in others:
        create_task(client, ada, title)

    assert [search(client, q, ada) for q in others.values()] == [[]] * len(others)


def test_without_words_nothing_is_filtered(client: TestClient) -> None:
    ada = sign_up(client)
    create_task(client, ada, "One")
    wordless = ["", " ", "?!", "_", "-", '"', "'", "\\", "\U0001f331", "*", "\u0301", "\ufe0f"]

    assert [search(client, q, ada) for q in wordless] == [["One"]] * len(wordless)


MARKED = (
    *("one AND two", "one OR two", "one NOT two", "NEAR(one two)", "one*", "one:*", "words:one", "{words}: one"),
    *('"one two"', '"one', "one'", "'one'", "one\\", "^one", "-one", "+one", "one & !two", "one <-> two", "one|two"),
    *("one) OR 1=1 --", "'; DROP TABLE tasks; --", "%one%", ":one", "?1", "$1", "one\n\t\u2028two", "_public"),
)


def test_no_mark_means_anything(client: TestClient) -> None:
    ada = sign_up(client)
    create_task(client, ada, "one two")

    for q in MARKED:
        task = create_task(client, ada, q)
        expected = {q, "one two"} if is_found(q, "one two") else {q}
        assert set(search(client, q, ada)) == expected
        client.delete(f"/tasks/{task['id']}", headers=ada.headers)


def test_a_search_may_be_long(client: TestClient) -> None:
    ada = sign_up(client)
    words = " ".join(chr(0x4E00 + number) for number in range(100))
    long = "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 200
    for title in words[:200], long:
        create_task(client, ada, title)

    assert search(client, words, ada) == [words[:200].strip()]
    assert search(client, long, ada) == [long]
    assert faults(client.get("/tasks/", params={"q": "x" * 201})) == [["query", "q"]]
    assert faults(client.get("/tasks/?q=a%00b")) == [["query"]]


def test_a_task_of_many_words_is_found_by_any(client: TestClient) -> None:
    ada = sign_up(client)
    description = " ".join(f"w{number}" for number in range(1_500))
    create_task(client, ada, "many", description=description)

    assert [search(client, f"w{number} w1499", ada) for number in (0, 750, 1_499, 1_500)] == [["many"]] * 3 + [[]]
    assert index_text("many", description).split() == ["many", *description.split()]


def test_the_first_2000_words_of_a_task_are_found(client: TestClient) -> None:
    """To find them all would cost everybody: a description has room for 10,000 of Chinese."""
    ada = sign_up(client)
    characters = [chr(0x4E00 + number) for number in range(3_000)]
    create_task(client, ada, "many", description="".join(characters))

    found = [search(client, q, ada) for q in (f"many {characters[0]}", characters[1_998], characters[1_999])]
    assert found == [["many"], ["many"], []]


def test_beginnings_are_found_among_many_others(client: TestClient, clock: MovableClock, database_url: str) -> None:
    """Rare ones that begin like common ones, common ones, and those of others."""
    ada, bob = sign_up(client), sign_up(client, "bob")
    owner_id = client.get("/users/me", headers=bob.headers).json()["id"]
    create_many(database_url, clock, owner_id, MAX_SORTED, title="Concrete dust", is_public=False)
    create_many(database_url, clock, owner_id, 30, title="Console dust")
    for login in ada, bob:
        create_task(client, login, "A conundrum in dust", is_public=True)

    def count(q: str, login: Login | None, path: str) -> int:
        return len(in_one(walk(client, f"{path}?limit=100&q={q}", login)))

    for prefix, own, public in (
        *(
            ("c", MAX_SORTED + 31, 32),
            ("con", MAX_SORTED + 31, 32),
            ("conc", MAX_SORTED, 0),
            ("concrete", MAX_SORTED, 0),
            ("concretes", 0, 0),
        ),
        *(("conundrum", 1, 2), ("conu", 1, 2), ("cons", 30, 30), ("conx", 0, 0), ("dust+con", MAX_SORTED + 31, 32)),
        *(("dust+conu", 1, 2), ("conu+dus", 0, 0), ("conundrum+dus", 1, 2), ("concrete+d", MAX_SORTED, 0)),
    ):
        assert [count(prefix, bob, "/tasks/mine"), count(prefix, None, "/tasks/public")] == [own, public], prefix
        assert count(prefix, ada, "/tasks/mine") == (public == 2 or own > MAX_SORTED)


def test_others_tasks_are_found_where_they_are_listed_only(client: TestClient) -> None:
    ada, bob = sign_up(client), sign_up(client, "bob")
    create_task(client, ada, "Ada's secret")
    create_task(client, bob, "Bob's secret")
    create_task(client, bob, "Bob's public secret", is_public=True)

    assert search(client, "secret", ada) == ["Ada's secret"]
    assert sorted(search(client, "secret", bob)) == ["Bob's public secret", "Bob's secret"]
    assert search(client, "secret", ada, "/tasks/public") == ["Bob's public secret"]
    assert search(client, "secret") == ["Bob's public secret"]
    assert search(client, "_public", ada) == []


def test_a_search_finds_the_changed_text(client: TestClient) -> None:
    ada = sign_up(client)
    task = create_task(client, ada, "old title", description="old text")

    def change(**changes: Any) -> None:
        assert client.patch(f"/tasks/{task['id']}", json=changes, headers=ada.headers).status_code == 200

    def found(path: str = "/tasks/") -> list[str]:
        return [word for word in ("old", "new", "title", "text") if search(client, word, ada, path)]

    assert found() == ["old", "title", "text"]
    change(title="new title")
    assert found() == ["old", "new", "title", "text"]
    change(description="text")
    assert found() == ["new", "title", "text"]
    change(description=None)
    assert found() == ["new", "title"]
    change(title="old", description="text")
    assert found() == ["old", "text"]
    assert found("/tasks/public") == []
    change(is_public=True)
    assert found("/tasks/public") == ["old", "text"]
    change(status="done", due_at=MONDAY)
    assert found() == ["old", "text"]
    change(is_public=False)
    assert found("/tasks/public") == []
    client.delete(f"/tasks/{task['id']}", headers=ada.headers)
    assert found() == []


def test_deleting_an_account_deletes_its_words(client: TestClient, sql: Sql, database_url: str) -> None:
    ada, bob = sign_up(client), sign_up(client, "bob")
    for login in ada, bob:
        create_task(client, login, "Shared", is_public=True)

    assert client.delete("/users/me", headers=ada.headers).status_code == 204

    assert search(client, "shared") == ["Shared"]
    if database_url.startswith("sqlite"):
        assert sql("SELECT count(*) FROM task_numbers") == [(1,)]
        sql("INSERT INTO task_words (task_words) VALUES ('integrity-check')")
        sql("DELETE FROM tasks")
        assert sql("SELECT count(*) FROM task_words WHERE task_words MATCH 'shared'") == [(0,)]


@pytest.mark.parametrize("limits", [(1, 4), pytest.param((1, 2, 3, 4), marks=pytest.mark.long)], ids=["short", "long"])
@pytest.mark.parametrize(("word", "count"), [("lost", 50), ("found", MAX_SORTED)], ids=["few", "many"])
def test_page_after_page_is_what_is_found_in_every_order(
    client: TestClient, database_url: str, clock: MovableClock, word: str, count: int, limits: tuple[int, ...]
) -> None:
    """Among others of the same moments, whether SQLite sorts what it finds or meets it on its way."""
    ada, bob = sign_up(client), sign_up(client, "bob")
    owner_id = client.get("/users/me", headers=bob.headers).json()["id"]
    create_many(database_url, clock, owner_id, count, description=f"{word} this")
    expected = []
    for number, due_at in enumerate([MONDAY, TUESDAY, None, MONDAY, TUESDAY, None]):
        clock.move(microseconds=number % 2)
        for is_found, text in (True, "found"), (False, "lost"):
            fields = {"description": f"{text} this {number}", "due_at": due_at, "is_public": True}
            task = create_task(client, bob, f"{text} {number}", status="doing", **fields)
            expected += [task] if is_found else []
        create_task(client, ada, f"found {number}")

    for sort in SORTS:
        sign, name = (-1, sort[1:]) if sort.startswith("-") else (1, sort)
        groups = [[task for task in expected if (task[name] is None) == is_null] for is_null in (False, True)]
        ordered = [sorted(group, key=lambda task: (moment(task[name]), task["id"])) for group in groups]
        whole = [task["title"] for group in ordered for task in group[::sign]]
        for path, login in ("/tasks/public", None), ("/tasks/mine", bob):
            for limit in limits:
                url = f"{path}?q=This+FOUND&status=doing&sort={sort}&limit={limit}"
                pages = walk(client, url, login)
                assert in_one(pages) == whole
                assert {len(page) for page in pages[:-1]} <= {limit}
    found = in_one(walk(client, "/tasks/mine?q=found&limit=100", bob))
    assert len(found) == len(set(found)) == 6 + (count if word == "found" else 0)


def test_filters_and_words_meet(client: TestClient) -> None:
    ada = sign_up(client)
    for title, status, due_at in ("a word", "todo", MONDAY), ("b word", "done", MONDAY), ("c word", "done", None):
        create_task(client, ada, title, status=status, due_at=due_at)

    assert search(client, "word", ada, status="done", due_before=TUESDAY) == ["b word"]
    assert search(client, "a", ada, due_after=TUESDAY) == []


def test_a_cursor_is_good_for_its_own_words_only(client: TestClient) -> None:
    ada = sign_up(client)
    for title in "one two", "two one":
        create_task(client, ada, title)
    page = client.get("/tasks/", params={"q": "one", "limit": 1}, headers=ada.headers)
    cursor = page.json()["next_cursor"]

    assert "?q=one&limit=1&cursor=" in page.headers["Link"]
    for query in {"q": "two"}, {"q": ""}, {}:
        response = client.get("/tasks/", params=query | {"cursor": cursor}, headers=ada.headers)
        assert faults(response) == [["query", "cursor"]]


def test_changes_at_once_lose_no_words(client: TestClient, database_url: str) -> None:
    """Each changes one of the two texts: the words of both are to be found in the end."""
    ada = sign_up(client)
    url = f"/tasks/{create_task(client, ada)['id']}"
    for number in range(10):
        changes = [{"title": f"title{number}"}, {"description": f"text{number}"}]
        with ThreadPoolExecutor(2) as threads:
            sent = threads.map(lambda change: client.patch(url, json=change, headers=ada.headers), changes)
            assert [answer.status_code for answer in sent] == [200, 200]

        assert search(client, f"title{number} text{number}", ada) == [f"title{number}"]


def test_a_compacted_file_finds_the_same(client: TestClient, database_url: str, sql: Sql, clock: MovableClock) -> None:
    """VACUUM may give rows other numbers than they had."""
    ada = sign_up(client)
    ids = []
    for number in range(10):
        clock.move(seconds=1)
        ids.append(create_task(client, ada, f"word{number}")["id"])
    for id_ in ids[::2]:
        client.delete(f"/tasks/{id_}", headers=ada.headers)

    sql("VACUUM")

    assert [search(client, f"word{number}", ada) for number in (1, 8, 9)] == [["word1"], [], ["word9"]]


LETTERS = st.sampled_from(
    [*"aAbé", "e\u0301", "ß", "SS", "İ", "i", "Σ", "ς", "9", "²", " ", " ", "-", "_", "'", '"', "*"]
)
TEXTS = st.lists(LETTERS, min_size=1, max_size=8).map("".join)


def words_of(text: str) -> list[str]:
    """The words of a text by another definition, for texts whose only marks are accents."""
    plain = re.sub("[\u0300-\u036f]", "", normalize("NFKD", normalize("NFKD", text).casefold()))
    return re.findall(r"[^\W_]+", plain)


def is_found(q: str, text: str) -> bool:
    *others, last = words_of(q) or [""]
    words = words_of(text)
    return not last or ({*others} <= {*words} and any(word.startswith(last) for word in words))


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, st.none() | TEXTS), max_size=5), st.lists(TEXTS, min_size=4, max_size=4))
def test_a_search_finds_what_its_model_finds(
    client: TestClient, sql: Sql, tasks: list[tuple[str, str | None]], searches: Iterable[str]
) -> None:
    if not sql("SELECT 1 FROM users"):
        register(client)
    sql("DELETE FROM tasks")
    login = log_in(client)
    made = [(title, text) for title, text in tasks if title.strip()]
    for title, text in made:
        create_task(client, login, title, description=text)

    for q in searches:
        expected = [title for title, text in made if is_found(q, f"{title} {text or ''}")]
        assert sorted(search(client, q, login)) == sorted(expected)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=200))
@example("𞤀" * 200)
def test_any_text_finds_itself(client: TestClient, sql: Sql, text: str) -> None:
    if not sql("SELECT 1 FROM users"):
        register(client)
    sql("DELETE FROM tasks")
    login = log_in(client)
    create_task(client, login, "Itself", description=text)

    assert search(client, text, login) == ["Itself"]


@pytest.mark.parametrize("text", ["\u0f73\u0344", "\uff9e\u0301", "\u1d15e\U0001d160\u3099"])
def test_marks_without_end_are_cut(text: str) -> None:
    """To put them in order takes time by the square of their number: whatever follows them is a word all the same."""
    words = index_text(f"{text * 5_000} kite", None).split()

    assert words[-1] == "kite"
    assert len("".join(words)) < 200


def caches() -> dict[str, Any]:
    modules = [module for name, module in sys.modules.items() if name.startswith("app.")]
    functions = {f"{module.__name__}.{name}": f for module in modules for name, f in vars(module).items()}
    return {name: f.cache_info() for name, f in functions.items() if isinstance(f, type(lru_cache(str)))}


def test_every_cache_has_a_bound() -> None:
    assert [name for name, cache in caches().items() if cache.maxsize is None] == []
    assert len(caches()) > 3


def test_searches_leave_nothing_in_the_caches(client: TestClient, clock: MovableClock, database_url: str) -> None:
    """A statement made for one search would be kept for good."""
    ada = sign_up(client)
    owner_id = client.get("/users/me", headers=ada.headers).json()["id"]
    create_many(database_url, clock, owner_id, 40, title="Water the plants")

    def search_often() -> dict[str, int]:
        for number in range(10):
            for path, login in ("/tasks/mine", ada), ("/tasks/public", None):
                search(client, f"water plants {number}", login, path)
                search(client, f"water {'the ' * number}", login, path)
        return {name: cache.currsize for name, cache in caches().items()}

    assert search_often() == search_often()
