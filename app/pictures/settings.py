"""The settings of a picture: its recipe as a request, for a form to fill in."""

from typing import Any

from app.pictures.files import class_names
from app.sample.recipe import check_model
from app.sample.request import model_guidance
from app.sample.schema import Recipe
from client.answers import RecipeSettings
from models.pipeline.card import ModelCard
from models.sampling.samplers import default_spacing
from store.errors import ModelConflict
from store.models import ModelRecord


def settings_of(recipe: Recipe, record: ModelRecord | None) -> RecipeSettings:
    """Return the settings of a recipe. `record` is the model that has its name now."""
    return RecipeSettings(
        request=_request(recipe, record),
        image=recipe.image,
        step=recipe.step,
        view=recipe.view,
        not_in_file=list(recipe.pictures),
        warning=_warning(recipe, record),
        recipe=recipe.model_dump(mode="json", exclude_none=True),
    )


def _request(recipe: Recipe, record: ModelRecord | None) -> dict[str, Any]:
    """Return a body of POST /sample that names classes, and leaves out what is the default. The
    precision is one, unless it is int8, which is never chosen by itself."""
    request = recipe.request.model_dump(mode="json", exclude_defaults=True)
    request["num_images"] = recipe.request.num_images
    if (names := class_names(recipe, record)) is not None:
        request["class_label"] = names[0] if len(set(names)) == 1 else names
    if recipe.request.precision != "int8":
        request.pop("precision", None)
    if record is not None:
        card = ModelCard.from_dict(record.details)
        usual = {
            "spacing": default_spacing(
                request["sampler"], card.schedule.name, card.sampling.spacing
            ),
            "guidance_scale": model_guidance(recipe.request, card),
        }
        request = {name: value for name, value in request.items() if value != usual.get(name, ...)}
    return request


def _warning(recipe: Recipe, record: ModelRecord | None) -> str | None:
    if record is None:
        return f"there is no model {recipe.request.model!r} here"
    try:
        check_model(recipe, record)
    except ModelConflict as error:
        return str(error)
    return None
