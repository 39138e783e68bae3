"""A file that TensorBoard reads: protocol buffers in the form of a TFRecord.

An attempt that resumes from a checkpoint writes it anew from the lines there, so that it never has
a step twice or a step that was lost.
"""

from pathlib import Path

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter


class EventFile:
    """An event file at `path`; `at` is always in seconds since 1970."""

    def __init__(self, path: Path, at: float) -> None:
        self.path = path
        self._records = RecordWriter(str(path))
        self._records.write(Event(wall_time=at, file_version="brain.Event:2").SerializeToString())

    def add_scalars(self, step: int, at: float, scalars: dict[str, float]) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._add(step, at, values)

    def add_png(self, step: int, at: float, tag: str, png: bytes) -> None:
        image = Summary.Image(encoded_image_string=png)
        self._add(step, at, [Summary.Value(tag=tag, image=image)])

    def flush(self) -> None:
        self._records.flush()

    def _add(self, step: int, at: float, values: list[Summary.Value]) -> None:
        event = Event(wall_time=at, step=step, summary=Summary(value=values))
        self._records.write(event.SerializeToString())
