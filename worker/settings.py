"""The settings of a worker and of the processes of its jobs; read once, in `main`."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Interval
from typing_extensions import Doc

from host.environment import Items
from store.access.owners import Quotas
from store.locations import Locations
from store.upkeep.keeping import Keeping

RootPath = Annotated[
    str,
    Items(
        "(/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*",
        "a path such as `/diffusion`, without `/` at the end",
    ),
    Doc("the path below which a proxy has the service; links in answers and webhooks have it"),
]


@dataclass(frozen=True)
class WorkerSettings:
    """Read by host.environment: `device` is DIFFUSION_DEVICE."""

    locations: Locations = field(default_factory=Locations)
    quotas: Quotas = field(default_factory=Quotas)
    keeping: Keeping = field(default_factory=Keeping)
    root_path: RootPath = ""
    worker_concurrency: Annotated[int, Ge(1), Doc("jobs that a worker runs at once")] = 1
    lease_seconds: Annotated[
        float, Ge(1), Doc("how long the job of a lost worker waits for the next worker")
    ] = 30.0
    grace_seconds: Annotated[
        float, Ge(0), Doc("from SIGTERM to SIGKILL, for the last checkpoint of a job")
    ] = 30.0
    train_niceness: Annotated[
        int, Interval(ge=0, le=19), Doc("how much training yields to serving")
    ] = 10
    train_threads: Annotated[
        int, Ge(0), Doc("CPU threads of one training process; 0 means all cores")
    ] = 0
    train_processes: Annotated[
        int,
        Ge(0),
        Doc("processes that share one training, by torchrun; 0 means one for each GPU, else one"),
    ] = 0
    device: Annotated[
        str, Doc("where jobs compute, as `cuda` or `cpu`; by default a GPU where there is one")
    ] = ""
    webhook_allow_private: Annotated[
        bool, Doc("webhooks go to public addresses only; 1 allows every address")
    ] = False
    import_allow_private: Annotated[
        bool, Doc("datasets are fetched from public addresses only; 1 allows every address")
    ] = False
