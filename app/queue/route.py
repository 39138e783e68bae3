"""/queue: what runs, and what waits for a worker."""

from fastapi import APIRouter

from app.queue.schema import queue_answer
from app.services import ServicesDep
from client.answers import QueueAnswer
from store.jobs.queue import read_queue
from store.jobs.requests import unfinished_jobs

router = APIRouter(prefix="/queue", tags=["training"])


@router.get("", summary="What runs, and when each waiting job will begin")
def get_queue(services: ServicesDep) -> QueueAnswer:
    """List jobs of all kinds: those that run, and then those that wait, the next one first. Owners
    take turns, and the jobs of one owner are ordered by `priority` and age. The jobs of others
    count for the places and the times, and are not shown."""
    database = services.database
    queue = read_queue(database.for_caller(None))
    return queue_answer(queue, unfinished_jobs(database), database)
