"""Callers take turns for the places of a pool."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.http.errors import Busy
from app.processes.turns import CALLER, Turns


class Scene:
    """Work that holds its place until it is told to end; `begun` has it in order."""

    def __init__(self, places: int, max_waiting: int = 100) -> None:
        self.turns = Turns(places, max_waiting)
        self.begun: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def ask(self, *names: str) -> None:
        """Ask for places; the first letter of a name is the caller."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._work(name))
            await settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self.tasks[name]
        await settle()

    async def _work(self, name: str) -> None:
        CALLER.set(name[0])
        async with self.turns.turn("wait", 0.1):
            self.begun.append(name)
            await self._ends[name].wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_those_who_wait_are_admitted_one_of_each_caller() -> None:
    async def scenario() -> None:
        scene = Scene(1)
        await scene.ask("a1", "a2", "a3", "a4", "b1", "b2", "c1")
        for number in range(7):
            await scene.end(scene.begun[number])
        assert scene.begun == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]
        assert len(scene.turns) == 0

    run(scenario)


def test_a_place_is_left_for_the_other_caller() -> None:
    async def scenario() -> None:
        scene = Scene(3)
        await scene.ask("b1")
        await scene.end("b1")
        await scene.ask("a1", "a2")
        assert scene.begun == ["b1", "a1"], "b was here a moment ago"
        await scene.ask("b2", "b3")
        assert scene.begun[2:] == ["b2"]
        await scene.end("a1")
        assert scene.begun[3:] == ["a2"]

    run(scenario)


def test_a_caller_alone_has_all_places() -> None:
    async def scenario() -> None:
        scene = Scene(3)
        await scene.ask("a1", "a2", "a3", "a4")
        assert scene.begun == ["a1", "a2", "a3"]

    run(scenario)


def test_one_caller_does_not_take_all_room_to_wait() -> None:
    async def scenario() -> None:
        scene = Scene(1, max_waiting=5)
        await scene.ask("a1", "a2", "a3", "a4", "a5", "a6")
        for name in ("a7", "b1", "b2", "b3", "b4"):
            await scene.ask(name)
        for name in ("a7", "b4"):  # two callers have three of the six places each
            with pytest.raises(Busy, match="wait") as refusal:
                await scene.tasks[name]
            assert int(refusal.value.headers["Retry-After"]) >= 1
        assert len(scene.turns) == 9

    run(scenario)


def test_who_leaves_gives_the_place_to_the_next() -> None:
    async def scenario() -> None:
        scene = Scene(1)
        await scene.ask("a1", "a2", "b1")
        scene.tasks["a2"].cancel()  # it waits
        await settle()
        scene.tasks["a1"].cancel()  # it works
        await settle()
        assert scene.begun == ["a1", "b1"]
        await scene.ask("c1", "c2")
        scene._ends["b1"].set()
        await asyncio.sleep(0)
        scene.tasks["c1"].cancel()  # as it is admitted
        await settle()
        assert scene.begun[-1] == "c2"
        await scene.end("c2")
        assert len(scene.turns) == 0

    run(scenario)
