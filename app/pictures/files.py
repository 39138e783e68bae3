"""Files that are to be kept: taken from a body, with what their recipes tell of them."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence

from app.http.errors import InvalidInput
from app.http.multipart import parse_form
from app.sample.recipe import read_recipe
from app.sample.schema import Recipe
from models.fields import Invalid
from models.images.parts import media_type_of
from models.images.reading import read_pictures
from store.models import ModelRecord
from store.pictures import NewPicture

FIELD = "image"  # of a form, for each file
MAX_PICTURES = 64  # in one body
MAX_RECIPE = 2**16  # characters; of a picture of more than some thousand classes it is longer

FindModel = Callable[[str], ModelRecord | None]
_ZIP = b"PK\3\4"
_DAMAGED_ZIP = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError),  # encrypted ones among them
    *(zlib.error, EOFError, OSError, ValueError),
)


def files_of(content_type: str, body: bytes, max_bytes: int) -> list[bytes]:
    """Return the files of a body: the parts of a form, the members of a zip of at most `max_bytes`
    in all, or the body itself. Raises InvalidInput and what parse_form raises."""
    if content_type.lower().startswith("multipart/"):
        form = parse_form(content_type, body)
        for name in form:
            if name != FIELD:
                raise InvalidInput.parameter(name[:100], f"there is no field {name[:100]!r}")
        files = form.get(FIELD, [])
    elif body.startswith(_ZIP):
        files = list(_members(body, max_bytes))
    else:
        files = [body]
    if not 1 <= len(files) <= MAX_PICTURES:
        raise InvalidInput.parameter(
            FIELD, f"there are {len(files)} files; it must be 1..{MAX_PICTURES}"
        )
    return files


def _members(body: bytes, max_bytes: int) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            found = [member for member in archive.infolist() if not member.is_dir()]
            for member in found[: MAX_PICTURES + 1]:
                with archive.open(member) as file:
                    content = file.read(max_bytes + 1)
                max_bytes -= len(content)
                if max_bytes < 0:
                    break
                yield content
    except _DAMAGED_ZIP as error:
        raise InvalidInput.pointer("", f"the zip cannot be read: {error}") from None
    if max_bytes < 0:
        raise InvalidInput.pointer("", "the files in the zip are larger than a body may be")


def new_pictures(files: Sequence[bytes], max_pixels: int, find: FindModel) -> list[NewPicture]:
    """Read files that carry recipes, with at most `max_pixels` in all. `find` gives a model by its
    name. Raises InvalidInput, which says the number of a file that is one of several."""
    found = []
    for number, content in enumerate(files, 1):
        try:
            new, pixels = _new_picture(content, max_pixels, find)
        except InvalidInput as error:
            if len(files) == 1:
                raise
            raise InvalidInput.parameter(FIELD, f"file {number}: {error}") from None
        max_pixels -= pixels
        found.append(new)
    return found


def _new_picture(content: bytes, max_pixels: int, find: FindModel) -> tuple[NewPicture, int]:
    if content.lstrip()[:1] == b"{":
        raise InvalidInput.pointer("", "this is JSON; it must be a PNG, WebP or JPEG")
    recipe = read_recipe(content)
    plain = recipe.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    if (length := len(recipe.model_dump_json(exclude_defaults=True))) > MAX_RECIPE:
        raise InvalidInput.pointer(
            "", f"the recipe has {length} characters; at most {MAX_RECIPE} are kept"
        )
    try:
        height, width = next(read_pictures(content, max_pixels, "first")).values.shape[:2]
    except Invalid as error:
        raise InvalidInput.pointer("", str(error)) from None
    request = recipe.request
    values = {
        "media_type": media_type_of(content),
        "width": width,
        "height": height,
        "model": request.model,
        "model_digest": recipe.model_digest,
        "class_name": only_class(recipe, find(request.model)),
        "seed": request.seed,
        "sampler": request.sampler,
        "recipe": plain,
    }
    return NewPicture(content, hashlib.sha256(content).hexdigest(), values), width * height


def only_class(recipe: Recipe, record: ModelRecord | None) -> str | None:
    """Return the name of the class that a picture shows; None where it has none or several, or
    where the model that knows their names is not there."""
    names = class_names(recipe, record)
    return names[0] if names and len(set(names)) == 1 else None


def class_names(recipe: Recipe, record: ModelRecord | None) -> list[str] | None:
    """Return the names of the classes of a recipe, one for each image or one for all. None where it
    has no class, and where the model that knows their names is not there."""
    given = recipe.request.class_label
    labels = given if isinstance(given, list) else [] if given is None else [given]
    if record is None or record.digest != recipe.model_digest:
        known: list[str] = []
    else:
        known = record.details.get("class_names", [])
    names = []
    for label in labels:
        if isinstance(label, str):
            names.append(label)
        elif 0 <= label < len(known):
            names.append(known[label])
        else:
            return None
    return names or None
