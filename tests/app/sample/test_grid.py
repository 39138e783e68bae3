"""POST /sample/grid on a running service: cells as POST /sample makes them, in every answer."""

import base64
import io
import json
import threading
import zipfile
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from PIL import Image

from models.images.recipe import carried
from tests.app.sample.test_route import events, opened

STEPS = {"setting": "num_inference_steps", "values": [3, 6]}
CLASSES = {"setting": "class_label", "values": ["dark", "light", None]}


@pytest.fixture(scope="module")
def model(client: httpx.Client, model_archive: Callable[..., bytes]) -> str:
    for name in ("tones", "tones-again"):
        archive = model_archive(image_size=(16, 16), class_names=("dark", "light"))
        client.put(f"/models/{name}", content=archive).raise_for_status()
    client.put("/models/small", content=model_archive()).raise_for_status()
    return "tones"


@pytest.fixture
def ask(client, model):
    """ask(accept, **body): the answer to a grid of steps by classes."""

    def post(accept: str = "application/json", **body: object) -> httpx.Response:
        request = {"model": model, "seed": 3, "deterministic": True, "x": STEPS, "y": CLASSES}
        given = {name: value for name, value in (request | body).items() if value is not ...}
        return client.post("/sample/grid", json=given, headers={"Accept": accept})

    return post


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)))


def cells(answer: httpx.Response) -> dict[tuple[int, int], np.ndarray]:
    """The images by column and row."""
    assert answer.status_code == 200, answer.text
    return {(cell["x"], cell["y"]): opened(cell["image"]) for cell in answer.json()["cells"]}


# The images ---------------------------------------------------------------------------------------


def test_each_cell_is_the_image_of_a_request_with_its_settings(ask, client, model):
    found = cells(ask(guidance_scale=1.0, sampler=None))
    assert list(found) == [(x, y) for y in range(3) for x in range(2)]
    for x, steps in enumerate(STEPS["values"]):
        for y, label in enumerate(CLASSES["values"]):
            body = {"model": model, "seed": 3, "deterministic": True}
            body |= {"num_inference_steps": steps, "class_label": label}
            alone = client.post("/sample", json=body, headers={"Accept": "image/png"})
            assert np.array_equal(found[x, y], pixels(alone.content))
    assert len({image.tobytes() for image in found.values()}) == 6


def test_without_a_seed_all_cells_share_one(ask):
    answer = ask(seed=...)
    used = {cell["used"]["seed"] for cell in answer.json()["cells"]}
    assert used == {int(answer.headers["Diffusion-Seed"])}
    again = ask(seed=used.pop())
    assert again.json()["cells"] == answer.json()["cells"]


def test_seeds_can_be_an_axis_and_one_axis_is_enough(ask):
    answer = ask(x={"setting": "seed", "values": [3, 4]}, y=..., num_inference_steps=3)
    assert "Diffusion-Seed" not in answer.headers
    first, second = cells(answer).values()
    assert np.array_equal(first, cells(ask())[0, 2])
    assert not np.array_equal(first, second)


def test_two_models_begin_with_the_same_noise(ask):
    models = {"setting": "model", "values": ["tones", "tones-again", "small"]}
    found = cells(ask(model=..., x=models, y=..., num_inference_steps=3))
    assert np.array_equal(found[0, 0], found[1, 0])
    assert [found[x, 0].shape for x in range(3)] == [(16, 16), (16, 16), (8, 8)]


# The answers --------------------------------------------------------------------------------------


def test_the_picture_shows_each_cell_enlarged_with_labels_around(ask):
    found = cells(ask())
    picture = pixels(ask("image/png").content)
    large = {place: image.repeat(7, axis=0).repeat(7, axis=1) for place, image in found.items()}
    corners = {}
    for place, image in large.items():
        views = np.lib.stride_tricks.sliding_window_view(picture[:, :, 0], image.shape)
        rows, columns = np.nonzero((views[:, :, ::37, ::37] == image[::37, ::37]).all((2, 3)))
        corners[place] = [
            (top, left)
            for top, left in zip(rows, columns, strict=True)
            if (views[top, left] == image).all()
        ]
        assert len(corners[place]) == 1, place
    top, left = corners[0, 0][0]
    assert corners[1, 0][0][0] == top
    assert corners[0, 1][0][1] == left
    assert picture[:top, left:].min() < 100, "the labels of the columns"
    assert picture[top:, :left].min() < 100, "the labels of the rows"


def test_the_same_picture_is_in_every_answer(ask):
    png = ask("image/png").content
    assert base64.b64decode(ask().json()["picture"]) == png
    with zipfile.ZipFile(io.BytesIO(ask("application/zip").content)) as archive:
        assert archive.read("grid.png") == png
        assert archive.namelist()[1:] == [
            f"row-0{y}-column-0{x}.png" for y in (1, 2, 3) for x in (1, 2)
        ]
        found = cells(ask())
        assert np.array_equal(pixels(archive.read("row-03-column-02.png")), found[1, 2])
    for name in ("jpeg", "webp"):
        lossy = Image.open(io.BytesIO(ask(f"image/{name}").content))
        assert (lossy.format, lossy.size) == (name.upper(), pixels(png).shape[1::-1])


def test_a_cell_can_be_made_again_and_the_picture_says_what_it_is(ask, client):
    answer = ask().json()
    file = base64.b64decode(answer["cells"][3]["image"])
    again = client.post("/sample/again", content=file).raise_for_status()
    assert again.content == file
    assert again.headers["Diffusion-Exact"] == "1"
    picture = base64.b64decode(answer["picture"])
    recipe = json.loads(carried(picture) or "")
    assert client.post("/sample/grid", json=recipe["grid"]).raise_for_status().content == picture
    refused = client.post("/sample/again", content=picture)
    assert refused.status_code == 422
    assert "POST /sample/grid" in refused.json()["detail"]


def test_events_tell_of_each_cell_as_it_is_done(ask):
    told = events(ask("text/event-stream"))
    names = [name for name, _ in told]
    assert (names[0], names[-1]) == ("started", "completed")
    assert told[0][1] == {"cells": 6, "steps": 3 * (3 + 6), "seed": 3}
    found = [data for name, data in told if name == "cell"]
    answer = ask().json()
    assert sorted(found, key=lambda cell: (cell["y"], cell["x"])) == answer["cells"]
    assert told[-1][1]["picture"] == answer["picture"]


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "pointer", "part"),
    [
        ({"x": {"setting": "num_inference_steps", "values": [5, 0]}}, "/x/values/1", "equal to 1"),
        ({"x": {"setting": "num_inference_steps", "values": [5, 2000]}}, "/x/values/1", "1..1000"),
        ({"x": {"setting": "sampler", "values": ["none"]}}, "/x/values/0", "none"),
        ({"x": {"setting": "sampler", "values": [None]}}, "/x/values/0", "null"),
        ({"x": {"setting": "seed", "values": [1, -1]}}, "/x/values/1", "equal to 0"),
        ({"x": {"setting": "seed", "values": []}}, "/x/values", "1 item"),
        ({"x": {"setting": "seed", "values": [[1]]}}, "/x/values/0", "a number, a text or null"),
        ({"x": {"setting": "num_images", "values": [1]}}, "/x/setting", "num_images"),
        ({"y": {"setting": "class_label", "values": ["dark", "red"]}}, "/y/values/1", "'red'"),
        ({"y": STEPS}, "/y/setting", "both x and y are num_inference_steps"),
        ({"x": {"setting": "seed", "values": [1, 2, 3]}}, "/x/values", "9 cells; their number"),
        ({"num_images": 2}, "/num_images", "one image in each cell"),
        ({"trajectory": True}, "/trajectory", "one image in each cell"),
        ({"eta": 2}, "/eta", "less than or equal to 1"),
        ({"model": ...}, "/model", "neither x nor y has models"),
    ],
)
def test_what_is_wrong_is_named(ask, body, pointer, part):
    answer = ask(**body)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert part in error["detail"]


def test_a_setting_that_does_not_suit_one_of_the_models_names_that_cell(ask):
    models = {"setting": "model", "values": ["tones", "small"]}
    answer = ask(x=models, y=..., class_label="dark")
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/class_label"
    assert "it has no classes (in the cell of model small)" in error["detail"]
    assert ask(x={"setting": "model", "values": ["nobody"]}, y=...).status_code == 404


def test_nothing_is_made_where_one_cell_is_refused(ask, client):
    def made() -> list[str]:
        lines = client.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith("diffusion_sample_seconds_count")]

    before = made()
    assert ask(x={"setting": "num_inference_steps", "values": [3, 2000]}).status_code == 422
    assert made() == before
    ask()
    assert made() != before


def test_a_caller_that_leaves_stops_all_cells(ask, client, model):
    body = {"model": model, "num_inference_steps": 1000}
    body["x"] = {"setting": "seed", "values": list(range(8))}
    with (
        httpx.Client(base_url=client.base_url, timeout=60) as other,
        other.stream(
            "POST", "/sample/grid", json=body, headers={"Accept": "text/event-stream"}
        ) as answer,
    ):
        next(answer.iter_lines())
    waiting = threading.Event()
    for _ in range(100):
        if client.get("/readyz").json()["components"]["engine"]["detail"].startswith("0 "):
            return
        waiting.wait(0.1)
    raise AssertionError("the engine still works for a caller that has left")
