"""The fixtures of tests that play a scene."""

import asyncio

import pytest

from tests.support.loops import MovableLoop
from tests.support.scene import Play, Story, served


@pytest.fixture
def play(sqlite_url: str) -> Play:
    """Run a story of a service and its client in a loop whose clock moves."""

    def play(story: Story) -> None:
        async def run() -> None:
            async with served(sqlite_url) as scene:
                await story(scene)

        with asyncio.Runner(loop_factory=MovableLoop) as runner:
            runner.run(run())

    return play
