"""GET /metrics, in Prometheus' text format."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.http.file_answers import file_answer
from app.metrics import MEDIA_TYPE, exposition
from app.services import ServicesDep
from store.jobs.requests import count_jobs

router = APIRouter(tags=["service"])


@router.get(
    "/metrics",
    summary="Counts and latencies, for Prometheus",
    response_class=Response,
    responses=file_answer("text/plain", "Prometheus' text format"),
)
async def metrics(services: ServicesDep) -> Response:
    """Return the metrics of the service.

    They are counted for requests by route, for samples by model and number of steps, and for the
    engine by model: waiting orders, network calls, their rows, their padding, and their time.
    """
    try:
        engine = await services.engine.statistics()
    except OSError:
        engine = None
    jobs = await run_in_threadpool(count_jobs, services.database)
    return Response(exposition(services.metrics, engine, jobs), media_type=MEDIA_TYPE)
