"""The recipe of images: all that makes them again, in JSON and in their files, which
models.images.recipe writes and reads.

It is the request with every choice made, the model with its digest and what it learned from, and
what computed it. Pictures of the request are named by their sha256 and are not in it.
"""

import base64
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError

from app.http.errors import InvalidInput, invalid_input
from app.http.file_answers import BINARY, JSON
from app.sample.schema import PICTURES, PictureField, Recipe, SampleBody, SampleUsed
from models.images.recipe import MAX_TEXT, carried
from store.errors import ModelConflict
from store.models import ModelRecord

# The bodies in which read_recipe finds one, as the OpenAPI document describes them.
CONTENT: Mapping[str, Mapping[str, object]] = {
    "application/octet-stream": BINARY,
    JSON: {"schema": {"$ref": "#/components/schemas/Recipe"}},
}


def make_recipe(body: SampleBody, used: SampleUsed, record: ModelRecord) -> dict[str, Any]:
    """Return the recipe of a request, as JSON; who makes the images says what computed them."""
    choices = {name: getattr(used, name) for name in SampleBody.model_fields if hasattr(used, name)}
    pictures = {
        name: hashlib.sha256(picture_bytes(name, text)).hexdigest()
        for name in PICTURES
        if (text := getattr(body, name)) is not None
    }
    reading = ("fit", "range", "frames") if pictures else ()
    request = SampleBody.model_validate(
        {
            **{name: value for name, value in choices.items() if value is not None},
            **{name: getattr(body, name) for name in ("num_images", "trajectory", *reading)},
        }
    )
    recipe = Recipe(
        format=1,
        service=version(),
        model_digest=record.digest,
        config_digest=_config_digest(record),
        dataset=record.dataset,
        dataset_version=record.dataset_version,
        dataset_digest=record.dataset_digest,
        media_type="image/png",
        request=request,
        pictures=pictures,
        computed_by="",
        exact=True,
    )
    unused = set() if pictures else {"range", "frames"}
    made = recipe.model_dump(mode="json", exclude_none=True, exclude={"request": unused})
    return {**made, "request_digest": _request_digest(made)}


def _request_digest(recipe: Mapping[str, Any]) -> str:
    """Return a digest of what was asked for. It stays with each image, whose own recipe is that of
    a smaller request."""
    # The name of the model is another for others, and what computes it may be another device.
    names = recipe["request"].keys() - {"model", "precision"}
    request = {name: recipe["request"][name] for name in names}
    what = (recipe["model_digest"], recipe["pictures"], request)
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def picture_bytes(field: PictureField, text: str) -> bytes:
    """Return the image file that a field holds in base64. Raises InvalidInput."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # also where it is not ASCII
        raise InvalidInput.pointer(f"/{field}", f"{field} is not base64") from None


def read_recipe(data: bytes) -> Recipe:
    """Return the recipe that a file of anybody's carries: an image, or JSON, where it may be the
    `recipe` of an answer. Raises InvalidInput, naming the field."""
    is_json = data.lstrip()[:1] == b"{"
    text = data if is_json else carried(data)
    if text is None:
        raise InvalidInput.pointer(
            "",
            "the file carries no recipe: it is no PNG, WebP or JPEG of this service, or another "
            "program has left the recipe out",
        )
    if len(text) > MAX_TEXT and not is_json:
        raise InvalidInput.pointer("", f"the recipe has more than {MAX_TEXT} characters")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput.pointer("", "the recipe is not valid JSON") from None
    if isinstance(found, Mapping) and isinstance(found.get("recipe"), Mapping):
        found = found["recipe"]
    if isinstance(found, Mapping) and "grid" in found:
        raise InvalidInput.pointer(
            "/grid",
            "this is the picture of a grid: POST /sample/grid takes its `grid`; each cell of a "
            "grid's zip and JSON carries a recipe of its own",
        )
    try:
        recipe = Recipe.model_validate(found)
    except ValidationError as error:
        raise invalid_input(error, "body") from None
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    """Refuse what no recipe of ours says."""
    request, count = recipe.request, recipe.request.num_images
    for field in ("seed", "sampler", "num_inference_steps", "precision"):
        if getattr(request, field) is None:
            raise InvalidInput.pointer(f"/request/{field}", f"a recipe names its {field}")
    for field in PICTURES:
        if getattr(request, field) is not None:
            raise InvalidInput.pointer(f"/request/{field}", f"a recipe does not hold {field}")
    if recipe.image is not None and recipe.image >= count:
        raise InvalidInput.pointer(
            "/image", f"image is {recipe.image}; it must lie in 0..{count - 1}"
        )
    if (recipe.step is None) != (recipe.view is None):
        raise InvalidInput.pointer("/view", "step and view go together")
    if recipe.view is not None and recipe.image is None:
        raise InvalidInput.pointer("/image", "image is missing; step and view are of one image")


def differences(recipe: Recipe, precision: str, computed_by: str, exact: bool) -> list[str]:
    """Say, a sentence each, why images made again may differ in their last bits from the first."""
    found = []
    if precision != recipe.request.precision:
        found.append(f"the network computes in {precision}, not in {recipe.request.precision}")
    if computed_by != recipe.computed_by:
        found.append(f"computed by {computed_by}; first by {recipe.computed_by}")
    if not (exact and recipe.exact):
        found.append("on this kind of device the last bits depend on what else is sampled")
    if recipe.service != version():
        found.append(f"made by version {version()} of the service; first by {recipe.service}")
    return found


def check_model(recipe: Recipe, record: ModelRecord) -> None:
    """Raise ModelConflict where a model has other weights or another config than the recipe's."""
    then, now = recipe.model_digest, record.digest
    what = "file of weights"
    if then == now and recipe.config_digest is not None:
        what, then, now = "config", recipe.config_digest, _config_digest(record) or ""
    if then != now:
        raise ModelConflict(
            f"model {record.name!r} has another {what} now: its digest is {now[:12]}..., that of "
            f"the recipe is {then[:12]}..."
        )


def _config_digest(record: ModelRecord) -> str | None:
    """Return a digest of the config's files, which the one of the weights leaves out."""
    if record.files is None:
        return None
    config = {name: sha256 for name, sha256 in record.files.items() if name.endswith(".json")}
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


@cache
def version() -> str:
    """Return the version of the service."""
    return importlib.metadata.version("diffusion-service")
