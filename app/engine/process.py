"""The sampling engine: `python -m app.engine.process SOCKET`, a process of its own.

A loop that launches network calls would hold the interpreter lock against the HTTP server, and a
crash of the loop must not bring down the API. One thread drives models.engine.engine; this one
talks. A connection carries one order, and closing it cancels the order. The process ends when its
standard input does, and removes SOCKET with the folder made for it.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

from host.loading import loading

with loading():
    from app.engine.model_cache import ModelCache
    from app.logs import configure_logs, log
    from app.processes.wire import Header, packed, receive, send
    from app.settings import Settings
    from host.environment import read_settings
    from host.lifeline import end_with_parent
    from host.tracing import annotate, span, start_tracing, stop_tracing
    from models.engine.batcher import Policy
    from models.engine.engine import Engine
    from models.engine.orders import Event, Failed, Made, Order, Preview, event_message
    from models.fields import Invalid
    from models.pipeline.engine_model import precisions, runtime_name
    from models.runtime.device import device_of_torch
    from store.artifacts import ArtifactStore
    from store.errors import ArtifactDamaged, ArtifactNotFound

IDLE_SECONDS = 60.0
MAX_UNREAD_BYTES = 4 * 2**20  # of one caller; beyond it no previews are sent to it


def main() -> None:
    settings = read_settings(Settings)
    configure_logs(settings.log_level, settings.log_format)
    start_tracing("engine")
    path = Path(sys.argv[1])
    end_with_parent(partial(_leave, path))
    asyncio.run(EngineServer(settings).serve(path))


class EngineServer:
    def __init__(self, settings: Settings) -> None:
        locations = settings.locations
        self._cache = locations.data_dir / "cache"
        policy = Policy(max_waiting=settings.max_waiting, batching=settings.engine_batching)
        self._engine, self._device = Engine(policy), device_of_torch()
        self._models = ModelCache(
            ArtifactStore(locations.artifacts_url),
            self._cache / "models",
            self._device,
            settings.engine_model_bytes,
            self._engine.release,
        )
        self._runtime, self._fault = "loading", ""
        self._numbers = count()
        self._callers: dict[int, Caller] = {}
        self._names: dict[Any, str] = {}  # of models, for the statistics

    async def serve(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, _leave, path)
        loading = asyncio.create_task(self._load_runtime())
        threading.Thread(target=self._drive, args=(loop,), name="engine", daemon=True).start()
        async with await asyncio.start_unix_server(self._answer, path) as server:
            await asyncio.gather(loading, server.serve_forever())

    def _precisions(self) -> Header:
        try:
            return cast(Header, precisions(self._device, self._cache))
        except Invalid:
            return {}  # _load_runtime has said why

    async def _load_runtime(self) -> None:
        """Load the library that computes networks now, so that the first request need not wait."""
        try:
            self._runtime = await asyncio.to_thread(runtime_name, self._device)
        except Invalid as error:
            self._fault = str(error)
            log.error("networks cannot be computed here", reason=self._fault)
            return
        log.info("networks are computed", by=self._runtime, device=self._device)

    def _drive(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while True:
                if events := self._engine.step(IDLE_SECONDS):
                    loop.call_soon_threadsafe(self._send, events)
        except BaseException:
            log.exception("the engine failed")
            os._exit(1)  # the API starts another and asks again

    def _send(self, events: Sequence[Event]) -> None:
        for event in events:
            if caller := self._callers.get(event.id):  # type: ignore[call-overload]
                caller.send(event)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            header, _ = await receive(reader)
            if "stats" in header:
                await send(writer, self._statistics())
            elif "precisions" in header:
                await send(writer, await asyncio.to_thread(self._precisions))
            elif "check" in header:
                await send(writer, {"error": await self._error_in(header)})
            else:
                order = Order.from_header(header["order"])
                with span(
                    "engine",
                    {"diffusion.model": order.model, "diffusion.images": order.num_images},
                    kind="server",
                    parent=header["traceparent"],
                ):
                    await self._make(order, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _error_in(self, header: Header) -> str | None:
        """Check the model of a folder; return what is wrong with it."""
        try:
            await self._models.check((header["prefix"], header["digest"]), Path(header["check"]))
        except Invalid as error:
            return str(error)
        return None

    async def _make(
        self, order: Order, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        started, number, key = time.monotonic(), next(self._numbers), order.model_key
        caller = self._callers[number] = Caller(writer)
        leaving = asyncio.ensure_future(reader.read())  # nothing more is sent until it is closed
        try:
            try:
                with span("load model"):
                    model = await self._models.get(key, order.files)
            except Invalid as error:
                caller.send(Failed(number, "invalid", str(error)))
            except ArtifactDamaged as error:
                caller.send(Failed(number, "damaged", error.why, artifact=error.key))
            except ArtifactNotFound:
                caller.send(Failed(number, "damaged", "it is missing", artifact=order.prefix))
            except Exception as error:
                log.exception("a model does not load", model=order.model)
                why = f": {error.strerror}" if isinstance(error, OSError) else ""  # a full disk
                caller.send(Failed(number, "failed", f"the model does not load{why}"))
            else:
                self._names[key] = order.model
                deadline = None if order.seconds is None else started + order.seconds
                with span("network calls"):
                    calls = self._engine.submit(number, order, model, deadline)
                    await caller.until_ended(leaving)
                    annotate({f"diffusion.{name}": value for name, value in vars(calls).items()})
            await writer.drain()
        finally:
            leaving.cancel()
            del self._callers[number]
            if not caller.ended.is_set():
                self._engine.cancel(number)
                annotate({"diffusion.cancelled": True})
            annotate(error=caller.failure)

    def _statistics(self) -> Header:
        batcher = self._engine.batcher
        groups = [
            {
                **vars(stats),
                "model": self._names.get(key.model_key, ""),
                "precision": key.precision,
                "deterministic": key.deterministic,
                "slots": batcher.groups[key].num_taken_slots if key in batcher.groups else 0,
            }
            for key, stats in list(self._engine.stats.items())
        ]
        return {
            "groups": groups,
            "runtime": self._runtime,
            "fault": self._fault,
            "waiting": len(batcher),
            "backlog_seconds": batcher.backlog_seconds(),
        }


class Caller:
    """The connection on which an order came."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.ended = asyncio.Event()
        self.failure = ""
        self._writer = writer

    def send(self, event: Event) -> None:
        unread = self._writer.transport.get_write_buffer_size()
        if isinstance(event, Preview) and unread > MAX_UNREAD_BYTES:
            return
        self._writer.write(packed(*event_message(event)))
        if isinstance(event, Failed):
            self.failure = event.reason
        if isinstance(event, Failed) or (isinstance(event, Made) and event.last):
            self.ended.set()

    async def until_ended(self, leaving: asyncio.Future[Any]) -> None:
        """Wait for the last event, or until the caller leaves."""
        ended = asyncio.ensure_future(self.ended.wait())
        await asyncio.wait((leaving, ended), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()


def _leave(path: Path) -> None:
    stop_tracing()
    with suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()
    os._exit(0)


if __name__ == "__main__":
    main()
