"""Ids and times: UUIDv7 that sort as their moments do, and columns that keep the same on both databases."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Connection, Dialect, Integer, MetaData, Table, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from app.db.types import Text, UTCDateTime, new_id
from tests.support.databases import write

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
TIMES = [
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-12))),
    NOW,
    NOW + MICROSECOND,
    NOW + timedelta(milliseconds=1),
    (NOW + timedelta(seconds=1)).astimezone(timezone(timedelta(hours=5, minutes=30))),
    datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=14))),
]
TEXTS = ["", " spaces ", "line\nbreak\r\n\t", "quote ' \" \\", "é e\u0301 \U0001f600 \u2028 \ufeff \uffff", "\x01\x7f"]
DIALECTS = [sqlite.dialect(), postgresql.dialect()]  # type: ignore[no-untyped-call]
SAMPLES = Table("samples", MetaData(), Column("id", Integer), Column("time", UTCDateTime), Column("text", Text(64)))

moments = st.datetimes(datetime(1970, 1, 1), datetime(2500, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(moments, st.integers(1, 10**12))
@example(NOW, 1)
@example(NOW.replace(microsecond=999_999), 1)
@settings(deadline=None)
def test_ids_sort_as_their_microseconds_do(moment: datetime, microseconds: int) -> None:
    later = moment + timedelta(microseconds=microseconds)

    assert new_id(moment) < new_id(later)


@given(moments)
@example(NOW.replace(microsecond=999_999))
@settings(deadline=None)
def test_an_id_is_a_uuid_of_version_7_in_its_one_spelling(moment: datetime) -> None:
    text = new_id(moment)

    parsed = UUID(text)
    assert str(parsed) == text
    assert parsed.version == 7
    assert parsed.variant == "specified in RFC 4122"
    assert parsed.int >> 80 == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def test_ids_of_one_moment_differ_in_their_random_bits() -> None:
    ids = {new_id(NOW) for _ in range(1000)}

    assert len(ids) == 1000
    assert len({text[:18] for text in ids}) == 1


def test_the_zone_of_a_moment_does_not_matter() -> None:
    assert new_id(NOW)[:18] == new_id(NOW.astimezone(timezone(timedelta(hours=-11))))[:18]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_naive_time_is_refused(dialect: Dialect) -> None:
    with pytest.raises(ValueError, match="a naive time"):
        UTCDateTime().process_bind_param(datetime(2026, 11, 23), dialect)  # noqa: DTZ001


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("text", ["\0", "before\0after", "after\0"])
def test_text_with_nul_is_refused(dialect: Dialect, text: str) -> None:
    with pytest.raises(ValueError, match="text with NUL"):
        Text().process_bind_param(text, dialect)


@given(moments, moments)
@settings(deadline=None)
def test_in_sqlite_times_sort_as_texts(one: datetime, other: datetime) -> None:
    first, second = (UTCDateTime().process_bind_param(moment, DIALECTS[0]) for moment in (one, other))

    assert (first < second) == (one < other)
    assert len(first) == len("2026-11-23T09:00:00.000000Z")


def test_times_and_texts_come_back_as_they_were_and_in_order(database_url: str) -> None:
    samples: list[dict[str, Any]] = [{"id": number, "time": time, "text": None} for number, time in enumerate(TIMES)]
    samples += [{"id": len(samples) + number, "time": None, "text": text} for number, text in enumerate(TEXTS)]

    def store_and_read(connection: Connection) -> list[dict[str, Any]]:
        SAMPLES.create(connection)
        connection.execute(insert(SAMPLES), samples[::-1])
        in_order = select(SAMPLES).order_by(SAMPLES.c.time.is_(None), SAMPLES.c.time, SAMPLES.c.id)
        return [dict(row) for row in connection.execute(in_order).mappings()]

    stored = write(database_url, store_and_read)

    assert stored == samples
    assert {time.utcoffset() for time in (row["time"] for row in stored) if time} == {timedelta()}
