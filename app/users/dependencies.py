"""What the endpoints of users are handed."""

from typing import Annotated

from fastapi import Depends, Request

from app.users.deletion import Deletions


async def get_deletions(request: Request) -> Deletions:
    deletions: Deletions = request.app.state.deletions
    return deletions


AppDeletions = Annotated[Deletions, Depends(get_deletions)]
