"""/healthz: is the process alive. /readyz: can it do its work, and what it stands on."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.http import problems
from app.http.problems import problem_response
from app.logs import log
from app.service.health_schema import Alive, Component, Readiness
from app.services import Check, services_of

router = APIRouter(tags=["service"])

CHECK_SECONDS = 2.0


@router.get("/healthz", summary="Is the process alive")
async def healthz() -> Alive:
    """Asks nothing else, so that a database that is down does not have the process restarted."""
    return Alive()


@router.get(
    "/readyz",
    summary="Is the service ready, and what does it stand on",
    response_model=Readiness,
    responses=problems.declare(problems.UNAVAILABLE),
)
async def readyz(request: Request) -> Response | Readiness:
    """503 only where a required component is down: the database. Without the others the service
    still noises images and accepts jobs, which start when these are back."""
    checks = services_of(request).checks
    found = await asyncio.gather(*(_ask(name, check) for name, check in checks.items()))
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


async def _ask(name: str, check: Check) -> Component:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return Component(status="up", required=check.required, detail=await check.ask())
    except TimeoutError:
        detail = f"did not answer within {CHECK_SECONDS:g} s"
    except Exception as error:
        log.warning("component is down", component=name, reason=f"{type(error).__name__}: {error}")
        detail = "cannot be reached"
    return Component(status="down", required=check.required, detail=detail)
