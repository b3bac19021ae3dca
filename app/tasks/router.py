"""/tasks: one's own, and everyone's public ones."""

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from app.auth.dependencies import BEARER_ERRORS
from app.bodies import JSONRoute
from app.clock import Now
from app.columns import PathId
from app.database import AnyRow, Db
from app.errors import describe
from app.tasks import service
from app.tasks.dependencies import (
    OPTIONAL,
    Filters,
    IdempotencyKey,
    IfMatch,
    IfNoneMatch,
    OptionalTaskReader,
    TaskReader,
    TaskWriter,
    etag,
)
from app.tasks.errors import TaskChanged, TaskNotFound
from app.tasks.schemas import TaskCreate, TaskPage, TaskRead, TaskUpdate

router = APIRouter(
    prefix="/tasks",
    tags=["tasks"],
    route_class=JSONRoute,
    responses=BEARER_ERRORS,
)


@router.get("/", response_model=TaskPage, openapi_extra=OPTIONAL)
@router.get("", response_model=TaskPage, include_in_schema=False)
async def list_tasks(user: OptionalTaskReader, query: Filters, db: Db, request: Request) -> Response:
    """List your tasks; without a token, everyone's public ones."""
    page = await (db.read(service.list_own, user, query) if user else db.read(service.list_public, query))
    return page.response(request)


@router.get("/mine", response_model=TaskPage)
@router.get("/mine/", response_model=TaskPage, include_in_schema=False)
async def list_own_tasks(user: TaskReader, query: Filters, db: Db, request: Request) -> Response:
    """List your tasks."""
    page = await db.read(service.list_own, user, query)
    return page.response(request)


@router.get("/public", response_model=TaskPage, openapi_extra=OPTIONAL)
@router.get("/public/", response_model=TaskPage, include_in_schema=False)
async def list_public_tasks(_: OptionalTaskReader, query: Filters, db: Db, request: Request) -> Response:
    """List everyone's public tasks, signed in or not."""
    page = await db.read(service.list_public, query)
    return page.response(request)


@router.post("/", status_code=201, response_model=TaskRead)
@router.post("", status_code=201, response_model=TaskRead, include_in_schema=False)
async def create_task(
    fields: TaskCreate, user: TaskWriter, db: Db, now: Now, request: Request, idempotency_key: IdempotencyKey = None
) -> Response:
    """Create a task."""
    task = await db.write(service.create_task, user, fields, idempotency_key, now)
    response = _response(task, 201)
    response.headers["Location"] = f"{request.scope.get('root_path', '')}/tasks/{task.id}"
    return response


@router.get(
    "/{task_id}",
    response_model=TaskRead,
    openapi_extra=OPTIONAL,
    responses={304: {"description": "If-None-Match has this version"}, **describe(TaskNotFound)},
)
async def read_task(task_id: PathId, user: OptionalTaskReader, if_none_match: IfNoneMatch, db: Db) -> Response:
    """Read a task: yours, or a public one."""
    task = await db.read(service.get_task, task_id, user)
    if etag(task.version) in if_none_match or "*" in if_none_match:
        return Response(status_code=304, headers={"ETag": etag(task.version)})
    return _response(task)


@router.patch("/{task_id}", response_model=TaskRead, responses=describe(TaskNotFound, TaskChanged))
async def change_task(
    task_id: PathId, changes: TaskUpdate, user: TaskWriter, if_match: IfMatch, db: Db, now: Now
) -> Response:
    """Change the fields that are given of a task of yours."""
    return _response(await db.write(service.update_task, user, task_id, changes, if_match, now))


@router.delete("/{task_id}", status_code=204, responses=describe(TaskNotFound, TaskChanged))
async def delete_task(task_id: PathId, user: TaskWriter, if_match: IfMatch, db: Db) -> None:
    """Delete a task of yours."""
    await db.write(service.delete_task, user, task_id, if_match)


def _response(task: AnyRow, status_code: int = 200) -> Response:
    """A `TaskRead`, written from the row without a detour, with its ETag."""
    fields = {name: value for name, value in task._asdict().items() if name in TaskRead.model_fields}
    headers = {"ETag": etag(task.version)}
    return Response(to_json(fields), status_code, headers, media_type="application/json")
