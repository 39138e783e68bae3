"""GET /metrics, for Prometheus."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.metrics import MEDIA_TYPE, exposition
from app.services import ServicesDep
from store.jobs.requests import count_jobs

router = APIRouter(tags=["service"])


@router.get(
    "/metrics",
    summary="Counts and latencies, for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format"}},
)
async def metrics(services: ServicesDep) -> Response:
    """Of requests by route; of samples by model and number of steps; of the engine by model: orders
    that wait, network calls, rows and unused places in them, and their time."""
    try:
        engine = await services.engine.statistics()
    except OSError:
        engine = None
    jobs = await run_in_threadpool(count_jobs, services.database)
    return Response(exposition(services.metrics, engine, jobs), media_type=MEDIA_TYPE)
