"""The kinds of jobs, a row for each.

The queue, the process that does the work, the worker that serves the kind, its routes and its
address all follow from its row. A new kind is a row here (and its name in `Kind`), a module in
`worker/` and a folder in `app/`; nothing else names it.

Light enough for the API to import: knows no database and loads nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from host.devices import NO_TORCH, has_torch

Kind = Literal["train", "sample", "evaluate", "import"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Pool = Literal["train", "rest"]
POOLS: tuple[Pool, ...] = get_args(Pool)


@dataclass(frozen=True)
class JobKind:
    """One kind of job.

    `collection` is the first part of its address over HTTP. `module` is run by a worker as a
    process for each job; `routes` is the API's module with the kind's `router`. `pool` names the
    worker of `make run` and of compose that serves it. `shares_processes` says that several
    processes may share one job, under torchrun; `can_pause` that a job may be paused and resumed;
    `has_notes` that its owner may give it tags and notes; `needs_torch` that only hosts with torch
    run it. A worker for which no job of this kind waits runs `helper` for the images of a job
    elsewhere (store.jobs.parts).
    """

    name: Kind
    collection: str
    module: str
    routes: str
    pool: Pool
    makes_model: bool = False
    can_pause: bool = False
    has_notes: bool = False
    shares_processes: bool = False
    needs_torch: bool = False
    helper: str | None = None

    @property
    def queue(self) -> str:
        return f"diffusion.{self.name}"

    def address(self, job_id: str) -> str:
        return f"/{self.collection}/{job_id}"


JOB_KINDS: dict[Kind, JobKind] = {
    row.name: row
    for row in (
        # Takes hours, so that no other kind may wait behind it.
        JobKind(
            "train",
            "train-jobs",
            module="worker.train_job",
            routes="app.training.route",
            pool="train",
            makes_model=True,
            can_pause=True,
            has_notes=True,
            shares_processes=True,
            needs_torch=True,
        ),
        JobKind(
            "sample",
            "sample-jobs",
            module="worker.sample_job",
            routes="app.sample.jobs_route",
            pool="rest",
            helper="worker.image_helper",
        ),
        JobKind(
            "evaluate",
            "evaluations",
            module="worker.evaluation_job",
            routes="app.evaluations.route",
            pool="rest",
            needs_torch=True,
        ),
        JobKind(
            "import",
            "dataset-imports",
            module="worker.import_job",
            routes="app.datasets.imports_route",
            pool="rest",
        ),
    )
}


def kinds_named(names: Sequence[str]) -> tuple[Kind, ...]:
    """Return the kinds that these names of kinds and pools stand for; without names, all kinds.

    Raises ValueError for a name that is neither.
    """
    for name in names:
        if name not in (*KINDS, *POOLS):
            known = ", ".join(dict.fromkeys((*POOLS, *KINDS)))
            raise ValueError(f"{name!r} is not a kind of job; there are {known}")
    chosen = [kind for kind in KINDS if {kind, JOB_KINDS[kind].pool} & set(names)]
    return tuple(chosen) or KINDS


def kinds_run_here(names: Sequence[str]) -> tuple[Kind, ...]:
    """Return the kinds of kinds_named that this host can run: without torch, not all.

    Raises ValueError for a name that is unknown, or of whose kinds this host can run none.
    """
    for name in names:
        if not any(map(_runs_here, kinds_named([name]))):
            raise ValueError(f"no job of {name!r} runs here: {NO_TORCH}")
    return tuple(filter(_runs_here, kinds_named(names)))


def _runs_here(kind: Kind) -> bool:
    return has_torch() or not JOB_KINDS[kind].needs_torch
