"""Every kind of job has all that it needs: a queue that is served, a process, a router.

How its addresses answer is in tests/app/jobs.
"""

import importlib

import pytest

from app.up import WORKERS
from store.jobs.kinds import JOB_KINDS, KINDS, POOLS, Kind, kinds_named
from worker.job_process import JobProcess


def test_every_kind_has_a_row() -> None:
    assert tuple(JOB_KINDS) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_that_is_started_serves_the_queue_of_the_kind(kind: Kind) -> None:
    served = [kind for pool in WORKERS for kind in kinds_named([pool])]
    assert served.count(kind) == 1


def test_no_two_kinds_share_a_queue_or_an_address() -> None:
    rows = JOB_KINDS.values()
    assert len({row.queue for row in rows}) == len({row.collection for row in rows}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_module_of_the_kind_has_a_process_for_its_jobs(kind: Kind) -> None:
    module = importlib.import_module(JOB_KINDS[kind].module)
    made_here = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, JobProcess) and value is not JobProcess
    ]
    assert made_here


@pytest.mark.parametrize("kind", KINDS)
def test_the_router_of_the_kind_begins_with_its_collection(kind: Kind) -> None:
    row = JOB_KINDS[kind]
    assert importlib.import_module(row.routes).router.prefix == f"/{row.collection}"


def test_names_of_pools_and_kinds_can_be_mixed() -> None:
    assert kinds_named([]) == KINDS
    assert kinds_named(["evaluate"]) == ("evaluate",)
    assert set().union(*(kinds_named([pool]) for pool in POOLS)) == set(KINDS)
    with pytest.raises(ValueError, match="'trian' is not a kind of job"):
        kinds_named(["trian"])
