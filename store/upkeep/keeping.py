"""For how long things are kept (store.upkeep.retention)."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc


@dataclass(frozen=True)
class Keeping:
    """Days for which things are kept, and how many pictures. Read by host.environment."""

    keep_trash: Annotated[
        float, Ge(0), Doc("days in which what was deleted can be restored; 0: none")
    ] = 7.0
    keep_logs: Annotated[
        float, Ge(0), Doc("days after its end that a job keeps its log and its events; 0: for good")
    ] = 0.0
    keep_checkpoints: Annotated[
        float, Ge(0), Doc("days after its end that a job keeps its checkpoints; 0: for good")
    ] = 0.0
    keep_sample_jobs: Annotated[
        float, Ge(0), Doc("days after its end that a sample job and its images stay; 0: for good")
    ] = 0.0
    keep_pictures: Annotated[
        int,
        Ge(0),
        Doc(
            "pictures of each owner that the gallery keeps; for more the oldest without a star are "
            "removed"
        ),
    ] = 5000
