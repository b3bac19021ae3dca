"""Cursors as text: each position has one spelling, and all other text is refused."""

import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.pagination.cursor import BadCursor, Position, codec_of, decode_cursor, encode_cursor
from app.tasks.models import Task

ID = "01a207a2-3280-7000-8422-653b1e4423a0"
TIME_AND_ID = codec_of(Task.due_at), codec_of(Task.id)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5)


def in_base64(content: Any) -> str:
    return urlsafe_b64encode(json.dumps(content).encode()).decode()


@given(st.none() | st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_position_comes_back_from_its_cursor(key: datetime | None, id_: UUID) -> None:
    position = Position(key, str(id_))

    assert decode_cursor("list", encode_cursor("list", position, *TIME_AND_ID), *TIME_AND_ID) == position


@given(st.text() | JSON.map(in_base64))
@example(urlsafe_b64encode(b"[" * 100_000).decode())
@example(urlsafe_b64encode(b"9" * 5_000).decode())
def test_any_other_text_is_a_bad_cursor(cursor: str) -> None:
    with pytest.raises(BadCursor):
        decode_cursor("list", cursor, *TIME_AND_ID)


@given(st.data())
def test_a_tampered_cursor_is_bad_or_another_position(data: st.DataObject) -> None:
    cursor = encode_cursor("list", Position(datetime(2026, 11, 30, 12, tzinfo=UTC), ID), *TIME_AND_ID)
    start = data.draw(st.integers(0, len(cursor)))
    end = data.draw(st.integers(start, min(start + 4, len(cursor))))
    tampered = cursor[:start] + data.draw(st.text("ABCabc0189-_=+/ \n", max_size=4)) + cursor[end:]

    try:
        position = decode_cursor("list", tampered, *TIME_AND_ID)
    except BadCursor:
        assert tampered != cursor
    else:
        assert encode_cursor("list", position, *TIME_AND_ID) == tampered
