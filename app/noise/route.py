"""POST /noise: the forward process on the caller's image."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.http import problems
from app.http.accept import choose
from app.http.errors import InvalidInput, invalid_input
from app.http.file_answers import content_of
from app.http.multipart import parse_form
from app.noise.answer import OFFERED
from app.noise.schema import NoiseAnswer, NoiseForm
from app.services import services_of
from app.settings import Settings


class DirectRoute(APIRoute):
    """A route that hands the request to its endpoint and returns the endpoint's response.

    FastAPI's dependencies and validation are bypassed, those of the application included.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


router = APIRouter(tags=["noise"], route_class=DirectRoute)

_HEADERS = {
    "Diffusion-Seed": "the seed",
    "Diffusion-Schedule": "the schedule",
    "Diffusion-Num-Train-Timesteps": "the number of steps of the schedule",
    "Diffusion-Method": "closed_form or step_by_step",
    "Diffusion-T": "t of each image, left to right",
    "Diffusion-Alpha": "alpha of each image: x_t = alpha x_0 + sigma noise",
    "Diffusion-Sigma": "sigma of each image",
    "Diffusion-Display-Scale": "the divisor of x_t of each image, applied before clipping",
    "Diffusion-Warning": "what looks odd in the image",
}
_OPENAPI: dict[str, object] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": NoiseForm.model_json_schema()}},
    }
}


@router.post(
    "/noise",
    summary="Add noise to an image",
    response_class=Response,
    responses={
        200: {
            "description": "The noised image. Several t give a strip of images, left to right, or "
            "an animation (image/apng). A zip has one PNG per t; JSON has each PNG in base64, "
            "with the coefficients.",
            "model": NoiseAnswer,
            "content": content_of(*OFFERED),
            "headers": {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in _HEADERS.items()
            },
        },
        **problems.declare(
            problems.MALFORMED,
            problems.NOT_ACCEPTABLE,
            problems.TOO_LARGE,
            problems.UNSUPPORTED,
            problems.INVALID,
            problems.UNAVAILABLE,
        ),
    },
    openapi_extra=_OPENAPI,
)
async def add_noise(request: Request) -> Response:
    """Apply the forward diffusion process x_t = alpha_t x_0 + sigma_t noise to your image.

    `curl -F image=@cat.png -F t=0 -F t=250 -F t=500 .../noise -o ladder.png`

    Every answer reports its seed: the same request with this seed gives the same bytes.
    """
    media_type = choose(request.headers.get("accept"), OFFERED)
    services = services_of(request)
    form = _read_form(request.headers.get("content-type", ""), await request.body())
    _check_timesteps(form, services.settings)
    by_step = form.method == "step_by_step"
    pool = services.step_by_step_pool if by_step else services.noise_pool
    header = {
        "form": form.model_dump(exclude={"image"}),
        "media_type": media_type,
        "request_id": request.scope["state"]["request_id"],
    }
    answer, content = await pool.call((header, form.image))
    response = Response(content, answer["status"])
    response.raw_headers = [(name, value) for name, value in answer["headers"]]
    return response


def _read_form(content_type: str, body: bytes) -> NoiseForm:
    fields: dict[str, object] = {}
    for name, values in parse_form(content_type, body).items():
        if name == "t":
            fields[name] = [value.decode("utf-8", "replace") for value in values]
        elif len(values) > 1:
            raise InvalidInput.parameter(
                name, f"{name} is given {len(values)} times; it may be given once"
            )
        else:
            fields[name] = values[0] if name == "image" else values[0].decode("utf-8", "replace")
    try:
        return NoiseForm.model_validate(fields)
    except ValidationError as error:
        raise invalid_input(error, "form") from None


def _check_timesteps(form: NoiseForm, settings: Settings) -> None:
    if len(form.t) > settings.max_images_per_request:
        raise InvalidInput.parameter(
            "t", f"t is given {len(form.t)} times; at most {settings.max_images_per_request}"
        )
    for t in form.t:
        if not 0 <= t <= form.num_train_timesteps:
            raise InvalidInput.parameter(
                "t", f"t is {t}; it must lie in 0..{form.num_train_timesteps}"
            )
