"""An event loop that a test moves through time."""

import asyncio


class MovableLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock moves when a test moves it, and never else."""

    moved = 0.0

    def time(self) -> float:
        return self.moved

    def move(self, seconds: float) -> None:
        self.moved += seconds
