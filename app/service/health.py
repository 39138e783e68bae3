"""GET /healthz: liveness. GET /readyz: readiness, and the state of each component."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.http import problems
from app.http.problems import problem_response
from app.logs import log
from app.service.health_schema import Alive, Component, ComponentDown, Readiness
from app.services import HealthCheck, services_of

router = APIRouter(tags=["service"])

CHECK_SECONDS = 2.0


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Alive:
    """Answer without asking any component.

    A database that is down must not cause the process to be restarted.
    """
    return Alive()


@router.get(
    "/readyz",
    summary="Is the service ready, and in what state are its components?",
    response_model=Readiness,
    responses=problems.declare(problems.UNAVAILABLE),
)
async def readyz(request: Request) -> Response | Readiness:
    """Report the state of every component.

    The answer is 503 only if a required component, the database, is down, and until the engine has
    answered once. Without the others the service still adds noise to images and accepts jobs, which
    start once the component is back.
    `workers` names the kinds of jobs that wait because no live worker takes them.
    """
    services = services_of(request)
    checks, answered = services.checks, services.answered
    found = await asyncio.gather(*(_probe(name, check, answered) for name, check in checks.items()))
    components = dict(zip(checks, found, strict=True))
    down = [name for name, component in components.items() if component.status == "down"]
    missing = [name for name in down if components[name].required]
    if missing:
        detail = "; ".join(f"{name} is down: {components[name].detail}" for name in missing)
        headers = {"Retry-After": "5"}
        states = {name: component.model_dump() for name, component in components.items()}
        return problem_response(
            problems.UNAVAILABLE, detail, request.scope, headers=headers, components=states
        )
    return Readiness(status="degraded" if down else "ready", components=components)


async def _probe(name: str, check: HealthCheck, answered: set[str]) -> Component:
    """Look at a component, and note it among those that have `answered`."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            detail = await check.probe()
        answered.add(name)
        return Component(status="up", required=check.required, detail=detail)
    except TimeoutError:
        detail = f"did not answer within {CHECK_SECONDS:g} s"
    except ComponentDown as error:
        answered.add(name)
        detail = str(error)
    except Exception as error:
        log.warning("component is down", component=name, reason=f"{type(error).__name__}: {error}")
        detail = "cannot be reached"
    required = check.required or (check.starts and name not in answered)
    return Component(status="down", required=required, detail=detail)
