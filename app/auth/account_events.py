"""Each account's own record: what concerns its security, for its owner to read.

An event is one row, inserted in the transaction that does the thing. Rare things only: a refresh is no event.
"""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, insert, select

from app.auth.liveness import Moment
from app.auth.models import AccountEvent, User
from app.auth.networks import LoginOrigin
from app.db.batches import Purge
from app.db.types import NO_ID, Id, new_id
from app.observe.events import Event
from app.pagination.order import SortOrder
from app.pagination.page import Page, PageQuery

KEPT_FOR: Final = timedelta(days=90)
COLUMNS = ("id", "user_id", "event", "at", "session_id", "reason", "ip", "user_agent")

# Without an account, as after a login with an unknown name, it inserts nothing, at about the same cost. It waits for a
# transaction that deletes the account: without the lock the foreign key would do that, and then raise an error.
INSERT_EVENT = insert(AccountEvent).from_select(
    COLUMNS,
    select(*(bindparam(name, type_=AccountEvent.__table__.c[name].type) for name in COLUMNS))
    .where(User.id == bindparam("user_id", type_=Id))
    .with_for_update(read=True, key_share=True),
)
SELECT_OWN_EVENTS = select(*(AccountEvent.__table__.c[name] for name in COLUMNS if name != "user_id")).where(
    AccountEvent.user_id == bindparam("user_id"), AccountEvent.id > bindparam("since_id", type_=Id)
)
LATEST_FIRST = SortOrder(AccountEvent.id, descending=True)


def record(
    connection: Connection,
    user_id: str,
    event: Event,
    now: datetime,
    origin: LoginOrigin | None = None,
    *session_ids: str | None,
    reason: str | None = None,
) -> None:
    """Add an event to the record of an account, for each of these sessions or for none.

    `origin` is the client, if it is the owner's or may be.
    """
    ip, user_agent = (origin.ip, origin.user_agent) if origin else (None, None)
    shared = {"user_id": user_id, "event": event, "at": now, "reason": reason, "ip": ip, "user_agent": user_agent}
    rows = [{"id": new_id(now), "session_id": session_id, **shared} for session_id in session_ids or [None]]
    connection.execute(INSERT_EVENT, rows)


def list_events(connection: Connection, user_id: str, query: PageQuery, moment: Moment) -> Page:
    """Read a page of a user's record of the last 90 days, the latest event first."""
    values = {"user_id": user_id, "since_id": new_id(moment.now - KEPT_FOR)}
    return LATEST_FIRST.page(connection, SELECT_OWN_EVENTS, query, "events", values)


def purge_events(now: datetime) -> Purge:
    """The purge of the events that are older than the record reaches."""
    return Purge(AccountEvent.id, AccountEvent.id, NO_ID, new_id(now - KEPT_FOR))
