"""POST /sample/again on a running service: files of every kind, made once more from themselves."""

import base64
import io
import json
import time
import zipfile
from collections.abc import Callable
from uuid import uuid4

import httpx
import numpy as np
import pytest
from PIL import Image

from app.main import create_app
from app.settings import Settings
from models.images.files import encode_image
from models.images.recipe import KEYWORD, carried
from models.runtime.openvino import resolve_precision
from store.locations import Locations

JSON = {"Accept": "application/json"}
REQUEST = {"model": "tones", "seed": 3, "num_inference_steps": 6}


@pytest.fixture(scope="module")
def tones(model_archive: Callable[..., bytes]) -> bytes:
    return model_archive(image_size=(16, 16), class_names=("dark", "light"))


@pytest.fixture(scope="module")
def ask(client: httpx.Client, tones: bytes) -> Callable[..., httpx.Response]:
    """ask(accept, **body): what POST /sample answers."""
    assert client.put("/models/tones", content=tones).status_code in (200, 201)

    def post(accept: str = "image/png", **body: object) -> httpx.Response:
        answer = client.post("/sample", json=REQUEST | body, headers={"Accept": accept})
        return answer.raise_for_status()

    return post


@pytest.fixture(scope="module")
def again(client: httpx.Client) -> Callable[..., httpx.Response]:
    """again(file, **headers): the file as the body."""

    def post(file: bytes, **headers: str) -> httpx.Response:
        return client.post("/sample/again", content=file, headers=headers)

    return post


def check_same(answer: httpx.Response, file: bytes) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.content == file
    assert answer.headers["diffusion-exact"] == "1"
    assert "diffusion-warning" not in answer.headers


def recipe_in(file: bytes) -> dict:
    return json.loads(carried(file) or "null")


def with_recipe(recipe: object) -> bytes:
    """A PNG of anybody's that carries this."""
    return encode_image(np.zeros((4, 4, 1), np.uint8), "png", recipe)


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)))


# The same bytes -----------------------------------------------------------------------------------

BODIES = {
    "one": {},
    "grid": {"num_images": 5, "class_label": [0, 1, 0, 1, 1], "guidance_scale": 2.5},
    "way": {"num_images": 2, "seed_to": 9, "sampler": "ddpm"},
    "trajectory": {"num_images": 2, "trajectory": True, "disturb": {"at": 2, "strength": 0.5}},
    "settings": {
        "class_label": "light",
        "guidance_scale": 1.5,
        "guidance_interval": [100, 900],
        "eta": 0.5,
        "sampler": "ddim",
        "spacing": "leading",
        "deterministic": True,
        "precision": "bfloat16",
    },
}


@pytest.mark.parametrize("name", ["png", "webp", "jpeg"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_picture_makes_its_own_bytes_again(ask, again, name, body):
    first = ask(f"image/{name}", **body)
    recipe = recipe_in(first.content)
    assert recipe["request"]["seed"] == 3
    assert recipe["model_digest"] == first.headers["diffusion-model-digest"]
    assert recipe["request"]["precision"] == first.headers["diffusion-precision"]
    answer = again(first.content)
    check_same(answer, first.content)
    assert answer.headers["content-type"] == f"image/{name}"
    assert answer.headers["diffusion-seed"] == "3"


@pytest.mark.parametrize("trajectory", [False, True])
def test_each_file_of_a_zip_makes_itself_again_alone(ask, again, trajectory):
    body = {"num_images": 3, "class_label": [1, 0, 1], "seed_to": 5, "trajectory": trajectory}
    content = ask("application/zip", **body).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    chosen = ["0000.png", "0002.png"]
    if trajectory:
        chosen += ["0001/0000-x_t.png", "0001/0004-x0_hat.png"]
    for name in chosen:
        check_same(again(files[name]), files[name])
    whole = again(
        json.dumps({**recipe_in(files["0001.png"]), "media_type": "application/zip"}).encode()
    )
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.namelist() == ["0001.png"]
        assert archive.read("0001.png") == files["0001.png"]


def test_the_json_of_an_answer_and_its_recipe_and_its_images_make_the_same(ask, again):
    first = ask("application/json", num_images=2, trajectory=True)
    answer = first.json()
    for file in (first.content, json.dumps(answer["recipe"]).encode()):
        check_same(again(file), first.content)
    for image in answer["images"]:
        file = base64.b64decode(image)
        check_same(again(file), file)
    file = base64.b64decode(answer["trajectories"][1][3]["x0_hat"])
    check_same(again(file), file)
    grid = again(first.content, Accept="image/png")
    assert np.array_equal(pixels(grid.content), pixels(ask(num_images=2, trajectory=True).content))


def test_images_of_a_stream_of_events_carry_their_recipes_and_are_streamed_again(ask, again):
    def completed(answer: httpx.Response) -> dict:
        return json.loads(answer.text.split("event: completed\ndata: ")[1].splitlines()[0])

    first = completed(ask("text/event-stream", num_images=2))
    file = base64.b64decode(first["images"][1])
    check_same(again(file), file)
    streamed = completed(again(file, Accept="text/event-stream"))
    assert streamed["images"] == [first["images"][1]]
    assert streamed["used"]["precision"] == first["used"]["precision"]


def test_a_form_takes_the_file_and_accept_another_type(client, ask, again):
    first = ask("image/webp", num_images=2).content
    answer = client.post("/sample/again", files={"image": first})
    check_same(answer, first)
    other = again(first, Accept="image/png")
    assert np.array_equal(pixels(other.content), pixels(ask(num_images=2).content))
    assert other.headers["diffusion-exact"] == "1"
    assert again(first, Accept="text/plain").status_code == 406


def test_a_seed_and_a_precision_that_the_service_chose_are_in_the_recipe(client, ask, again):
    first = client.post("/sample", json={"model": "tones"}).content
    check_same(again(first), first)
    recipe = recipe_in(first)
    assert recipe["request"]["precision"] == resolve_precision("auto")
    assert recipe["computed_by"].startswith("OpenVINO ")
    assert recipe["computed_by"].endswith("threads")


def test_an_image_without_its_recipe_is_the_same_image(ask, serve, tmp_path, tones):
    settings = Settings(locations=Locations(tmp_path), recipe=False, example_model=False)
    with (
        serve(create_app(settings)) as address,
        httpx.Client(base_url=address, timeout=60) as other,
    ):
        other.put("/models/tones", content=tones).raise_for_status()
        answer = other.post("/sample", json=REQUEST).raise_for_status()
        as_json = other.post("/sample", json=REQUEST, headers=JSON).json()
        file = ask().content
        bare = other.post("/sample/again", content=file)
    assert carried(answer.content) is None
    assert as_json["recipe"] is None
    assert carried(base64.b64decode(as_json["images"][0])) is None
    assert np.array_equal(pixels(answer.content), pixels(file))
    assert bare.content == answer.content  # it is read all the same
    assert bare.headers["diffusion-exact"] == "1"


def test_what_the_model_learned_from_is_in_the_recipe(service, tmp_path):
    """Trained, and made by a worker: the images of a job carry the same."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i in range(20):
            tone = np.full((8, 8, 1), 60 + 120 * (i % 2), np.uint8)
            archive.writestr(f"{'ab'[i % 2]}/{i}.png", encode_image(tone, "png"))
    dataset = service.put("/datasets/tones", content=buffer.getvalue()).json()
    net = {"block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4}
    net["attention_head_dim"] = 4
    body = {"dataset": "tones", "steps": 1, "model_name": "tiny", "net": net, "batch_size": 4}
    wait(service, service.post("/train-jobs", json=body).raise_for_status())
    request = {"model": "tiny", "num_images": 3, "class_label": ["b", "a", "b"], "seed": 4}
    request["num_inference_steps"] = 3
    first = service.post("/sample", json=request, headers=JSON).json()
    recipe = first["recipe"]
    assert (recipe["dataset"], recipe["dataset_version"]) == ("tones", 1)
    assert recipe["dataset_digest"] == dataset["digest"]
    prefer = {"Prefer": "respond-async"}
    job = wait(service, service.post("/sample", json=request, headers=prefer).raise_for_status())
    for i in range(3):
        file = service.get(f"{job['links']['images']}/{i}").content
        assert file == base64.b64decode(first["images"][i])
        check_same(service.post("/sample/again", content=file), file)


def wait(service: httpx.Client, accepted: httpx.Response) -> dict:
    deadline = time.monotonic() + 120
    while True:
        job = service.get(accepted.headers["location"], params={"wait": 10}).json()
        if job["status"] in ("succeeded", "failed", "cancelled") or time.monotonic() > deadline:
            assert job["status"] == "succeeded", job
            return job


# Where it cannot be the same ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"computed_by": "torch 2.13.0, an H200"}, "first by torch 2.13.0, an H200"),
        ({"service": "0.0.1"}, "of the service; first by 0.0.1"),
        ({"exact": False}, "depend on what else is sampled"),
    ],
)
def test_what_may_make_a_difference_is_said(ask, again, changes, words):
    first = ask().content
    answer = again(with_recipe({**recipe_in(first), **changes}))
    assert answer.status_code == 200
    assert np.array_equal(pixels(answer.content), pixels(first))
    assert answer.headers["diffusion-exact"] == "0"
    assert words in answer.headers["diffusion-warning"]
    as_json = again(with_recipe({**recipe_in(first), **changes}), **JSON).json()
    assert [words in warning for warning in as_json["warnings"]] == [True]


def test_another_precision_is_said(ask, again):
    recipe = recipe_in(ask(precision="float32").content)
    recipe["request"]["precision"] = "auto"  # as no recipe has it
    answer = again(with_recipe(recipe))
    assert answer.headers["diffusion-exact"] == "0"
    assert f"in {resolve_precision('auto')}, not in auto" in answer.headers["diffusion-warning"]


def test_a_model_that_is_gone_or_another_is_no_model_of_the_recipe(client, again, model_archive):
    name = f"short-{uuid4().hex[:6]}"
    client.put(f"/models/{name}", content=model_archive()).raise_for_status()
    body = {"model": name, "num_inference_steps": 2}
    file = client.post("/sample", json=body).raise_for_status().content
    check_same(again(file), file)
    client.delete(f"/models/{name}").raise_for_status()
    gone = again(file)
    assert gone.status_code == 404
    assert name in gone.json()["detail"]
    for archive, what in [
        (model_archive(norm_num_groups=8, class_names=("a",)), "file of weights"),
        (model_archive(image_size=(16, 16)), "config"),  # the same weights fit it
    ]:
        client.put(f"/models/{name}", content=archive).raise_for_status()
        other = again(file)
        assert other.status_code == 409
        assert f"has another {what} now" in other.json()["detail"]
        client.delete(f"/models/{name}").raise_for_status()
    client.put(f"/models/{name}", content=model_archive()).raise_for_status()
    check_same(again(file), file)


def test_pictures_that_images_began_with_come_beside_the_file(client, ask, again):
    begin, mask = (encode_image(np.full((16, 16, 1), v, np.uint8), "png") for v in (200, 255))
    given = {"init_image": begin, "mask": mask}
    body = {name: base64.b64encode(file).decode() for name, file in given.items()}
    file = ask(**body, strength=0.6, fit="pad").content
    missing = again(file)
    assert missing.status_code == 422
    assert missing.json()["errors"][0]["parameter"] == "init_image"
    assert "does not hold" in missing.json()["detail"]
    check_same(client.post("/sample/again", files={"image": file, **given}), file)
    swapped = {"image": file, "init_image": mask, "mask": begin}
    refused = client.post("/sample/again", files=swapped)
    assert refused.json()["errors"][0]["parameter"] == "init_image"
    assert "another file" in refused.json()["detail"]
    plain = client.post("/sample/again", files={"image": ask().content, "mask": mask})
    assert plain.json()["errors"][0]["parameter"] == "mask"


# Files of anybody's -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"no image",
        b"{",
        b"[1]",
        b'{"recipe": 1}',
        encode_image(np.zeros((4, 4, 1), np.uint8), "png"),
    ],
)
def test_a_file_without_a_recipe_is_refused(again, file):
    answer = again(file)
    assert answer.status_code == 422
    assert "recipe" in answer.json()["detail"] or "format" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"format": 2}, "/format"),
        ({"more": 1}, "/more"),
        ({"image": 1}, "/image"),
        ({"image": -1}, "/image"),
        ({"step": 1}, "/view"),
        ({"step": 6, "view": "x_t", "image": 0}, "/step"),
        ({"step": 1, "view": "x_t"}, "/image"),
        ({"service": "a\r\nSet-Cookie: b"}, "/service"),
        ({"computed_by": "x" * 201}, "/computed_by"),
        ({"model_digest": "../.."}, "/model_digest"),
        ({"media_type": "text/html"}, "/media_type"),
        ({"pictures": {"other": "ab"}}, "/pictures/other/[key]"),
        ({"request": {"num_images": 10**9}}, "/request/num_images"),
        ({"request": {"num_inference_steps": 1001}}, "/request/num_inference_steps"),
        ({"request": {"num_inference_steps": None}}, "/request/num_inference_steps"),
        ({"request": {"seed": -1}}, "/request/seed"),
        ({"request": {"seed": None}}, "/request/seed"),
        ({"request": {"class_label": 2}}, "/request/class_label"),
        ({"request": {"init_image": "aaaa"}}, "/request/init_image"),
        ({"request": {"guidance_interval": [9, 3]}}, "/request/guidance_interval"),
        ({"request": {"sampler": "lcm"}}, "/request/sampler"),
        ({"request": {"model": "../x"}}, "/request/model"),
    ],
)
def test_what_a_recipe_of_anybodys_says_is_checked_by_its_field(ask, again, changes, pointer):
    recipe = recipe_in(ask().content)
    recipe = {**recipe, **changes, "request": {**recipe["request"], **changes.get("request", {})}}
    answer = again(with_recipe(recipe))
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_form_with_other_fields_is_refused(client, ask):
    file = ask().content
    for files, field in [({"file": file}, "file"), ({"mask": file}, "image")]:
        answer = client.post("/sample/again", files=files)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["parameter"] == field
    twice = client.post("/sample/again", files=[("image", file), ("image", file)])
    assert twice.json()["errors"][0]["parameter"] == "image"


def test_the_chunk_is_where_other_programs_find_it(ask):
    image = Image.open(io.BytesIO(ask().content))
    assert json.loads(image.text[KEYWORD])["format"] == 1
    webp = Image.open(io.BytesIO(ask("image/webp").content))
    assert b"diffusion:recipe=" in webp.info["xmp"]
