"""/tasks: your own tasks, and everyone's public ones."""

from typing import Annotated, Any

from fastapi import Header, Query, Request, Response, Security
from pydantic_core import to_json

from app.auth.access import CallerDatabase
from app.auth.dependencies import AppSettings, get_caller_database, get_optional_caller_database
from app.clock import Now
from app.db.database import ANYONE, Db
from app.db.replica import PublicDb
from app.http.conditional import ETAG, IfMatch, IfNoneMatch, has_version, validators
from app.http.fields import PathId
from app.http.openapi import describe, header
from app.http.planned_route import PlannedRoute
from app.http.router import Router
from app.observe.events import log_event
from app.pagination.page import PAGE
from app.tasks import changes, service
from app.tasks.errors import IdempotencyKeyReused, ReadOnlyField, TaskChanged, TaskNotFound, TooManyTasks
from app.tasks.quota import NearLimit
from app.tasks.schemas import TaskCreate, TaskPage, TaskQuery, TaskRead, TaskUpdate
from app.tasks.service import TaskFields

TaskReaderDb = Annotated[CallerDatabase, Security(get_caller_database, scopes=["tasks:read"])]
TaskWriterDb = Annotated[CallerDatabase, Security(get_caller_database, scopes=["tasks:write"])]
OptionalTaskReaderDb = Annotated[CallerDatabase | None, Security(get_optional_caller_database, scopes=["tasks:read"])]
"""None without a token: such a caller gets public tasks only, from the plain database."""

Filters = Annotated[TaskQuery, Query()]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="Makes a retry safe: the same key and body answer with the same task.",
    ),
]

OPTIONAL: dict[str, Any] = {"security": [{}]}
"""Tells the OpenAPI document that an operation needs no token."""

CREATED = {"headers": ETAG["headers"] | header("Location", "The task's URL.", format="uri-reference")["headers"]}
UNCHANGED = {"description": "If-None-Match has this version", **ETAG}

router = Router(prefix="/tasks", tags=["tasks"], route_class=PlannedRoute)


@router.get("", response_model=TaskPage, responses=PAGE, openapi_extra=OPTIONAL)
async def list_tasks(db: PublicDb, caller_db: OptionalTaskReaderDb, query: Filters, request: Request) -> Response:
    """List your tasks. Without a token, list everyone's public tasks."""
    if caller_db:
        page = await caller_db.read_if_live(service.list_own, query)
    else:
        page = await db.read_for(ANYONE, service.list_public, query)
    return page.response(request, query)


@router.get("/mine", response_model=TaskPage, responses=PAGE)
async def list_own_tasks(db: TaskReaderDb, query: Filters, request: Request) -> Response:
    """List your tasks."""
    page = await db.read_if_live(service.list_own, query)
    return page.response(request, query)


@router.get("/public", response_model=TaskPage, responses=PAGE, openapi_extra=OPTIONAL)
async def list_public_tasks(
    db: PublicDb, caller_db: OptionalTaskReaderDb, query: Filters, request: Request
) -> Response:
    """List everyone's public tasks, with a token or without."""
    if caller_db:
        page = await caller_db.read(lambda connection, _: service.list_public(connection, query))
    else:
        page = await db.read_for(ANYONE, service.list_public, query)
    return page.response(request, query)


@router.post(
    "",
    status_code=201,
    response_model=TaskRead,
    responses={201: CREATED, **describe(IdempotencyKeyReused, TooManyTasks)},
)
async def create_task(
    fields: TaskCreate,
    db: TaskWriterDb,
    settings: AppSettings,
    now: Now,
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create a task."""
    values = fields, idempotency_key, settings.tasks_limit, now
    try:
        task = await db.write_if_live(service.create_task, *values)
    except NearLimit:
        task = await db.write_if_live_alone(service.create_task, *values, is_alone=True)
    response = _response(task, 201)
    response.headers["Location"] = f"{request.scope.get('root_path', '')}/tasks/{task['id']}"
    return response


@router.get(
    "/{task_id}",
    response_model=TaskRead,
    openapi_extra=OPTIONAL,
    responses={200: ETAG, 304: UNCHANGED, **describe(TaskNotFound)},
)
async def read_task(task_id: PathId, db: Db, caller_db: OptionalTaskReaderDb, if_none_match: IfNoneMatch) -> Response:
    """Read a task: yours, or a public one."""
    if caller_db:
        task = await caller_db.read_if_live(service.get_visible, task_id)
    else:
        task = await db.read_for(ANYONE, service.get_public, task_id)
    if has_version(if_none_match, task["version"]):
        return Response(status_code=304, headers=validators(task["version"]))
    return _response(task)


@router.patch(
    "/{task_id}", response_model=TaskRead, responses={200: ETAG, **describe(TaskNotFound, TaskChanged, ReadOnlyField)}
)
async def change_task(task_id: PathId, fields: TaskUpdate, db: TaskWriterDb, if_match: IfMatch, now: Now) -> Response:
    """Change the fields that are given of a task of yours."""
    return _response(await db.write(changes.update_task, task_id, fields, if_match, now))


@router.delete("/{task_id}", status_code=204, responses=describe(TaskNotFound, TaskChanged))
async def delete_task(task_id: PathId, db: TaskWriterDb, if_match: IfMatch) -> None:
    """Delete a task of yours. An administrator, with the scope `admin`, may delete a public task of anybody."""
    owner_id = await db.write(changes.delete_task, task_id, if_match)
    if db.claims.sub != owner_id:
        log_event("task_removed", target_id=owner_id, task_id=task_id)


def _response(task: TaskFields, status_code: int = 200) -> Response:
    """Answer with a task as `TaskRead` has it. The database's values become JSON without being validated."""
    fields = {name: task[name] for name in TaskRead.model_fields}
    return Response(to_json(fields), status_code, validators(task["version"]), media_type="application/json")
