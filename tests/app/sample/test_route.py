"""POST /sample on a running service: every way to ask, every way to answer."""

import base64
import io
import json
import zipfile
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from PIL import Image

from models.runtime.openvino import resolve_precision
from tests.models.images.test_reading import CAMERA, RED, gif, png16

JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def model(client: httpx.Client, model_archive: Callable[..., bytes]) -> str:
    archive = model_archive(image_size=(16, 16), class_names=("dark", "light"))
    assert client.put("/models/tones", content=archive).status_code in (200, 201)
    return "tones"


@pytest.fixture
def ask(client, model):
    """ask(**body): the images (N, 16, 16) and what was used, in the deterministic mode."""

    def post(accept: str = "application/json", **body: object) -> httpx.Response:
        request = {"model": model, "seed": 3, "num_inference_steps": 6, "deterministic": True}
        return client.post("/sample", json=request | body, headers={"Accept": accept})

    return post


def images(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.stack([opened(data) for data in answer.json()["images"]]).astype(int)


def opened(data: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def encoded(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def slope() -> np.ndarray:
    return np.add.outer(np.arange(16), np.arange(16)) * 8


def test_what_was_used_makes_the_images_again(ask):
    first = ask(num_images=3, class_label=["dark", 1, "dark"], guidance_scale=2.5, sampler="unipc")
    used = first.json()["used"]
    assert used["class_label"] == [0, 1, 0]
    assert used["spacing"] == "trailing"
    again = ask(num_images=3, **{k: v for k, v in used.items() if k not in ("model_digest",)})
    assert np.array_equal(images(again), images(first))


def test_a_grid_a_zip_and_single_files_show_the_same_images(ask):
    expected = images(ask(num_images=4))
    grid = np.asarray(Image.open(io.BytesIO(ask("image/png", num_images=4).content)))
    assert np.array_equal(grid[:16, :16], expected[0])
    assert np.array_equal(grid[-16:, -16:], expected[3])
    with zipfile.ZipFile(io.BytesIO(ask("application/zip", num_images=4).content)) as archive:
        assert archive.namelist() == [f"{i:04}.png" for i in range(4)]
        for i, name in enumerate(archive.namelist()):
            assert np.array_equal(Image.open(io.BytesIO(archive.read(name))), expected[i])
    for name in ("jpeg", "webp"):
        lossy = Image.open(io.BytesIO(ask(f"image/{name}", num_images=4).content))
        assert (lossy.format, lossy.size) == (name.upper(), grid.shape)


# Trajectories -------------------------------------------------------------------------------------


def test_a_trajectory_ends_with_the_image(ask):
    expected = images(ask(num_images=2))
    answer = ask(num_images=2, trajectory=True)
    assert np.array_equal(images(answer), expected)
    walks = answer.json()["trajectories"]
    assert [len(walk) for walk in walks] == [6, 6]
    t = [step["t"] for step in walks[0]]
    assert t == sorted(t, reverse=True)
    assert t[0] == 1000
    # The last row goes all the way to the clean image that it sees.
    assert np.array_equal(opened(walks[1][-1]["x0_hat"]), expected[1])
    strip = np.asarray(
        Image.open(io.BytesIO(ask("image/png", num_images=2, trajectory=True).content))
    )
    assert strip.shape[1] > 6 * 16
    assert np.array_equal(opened(walks[0][0]["x_t"]), _tile(strip, 0, 0))
    assert np.array_equal(opened(walks[1][2]["x0_hat"]), _tile(strip, 3, 2))
    assert np.array_equal(expected[0], _tile(strip, 1, 6))
    animation = Image.open(io.BytesIO(ask("image/webp", num_images=2, trajectory=True).content))
    assert animation.n_frames == 7
    files = zipfile.ZipFile(io.BytesIO(ask("application/zip", trajectory=True).content))
    assert len(files.namelist()) == 1 + 2 * 6


def _tile(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    y, x = 17 * row, 17 * column
    return sheet[y : y + 16, x : x + 16]


def test_a_trajectory_beyond_the_bound_is_refused(ask):
    answer = ask(num_images=8, num_inference_steps=1000, trajectory=True)
    assert answer.status_code == 422
    assert "1000000" in answer.json()["errors"][0]["detail"]


# Events -------------------------------------------------------------------------------------------


def events(response: httpx.Response) -> list[tuple[str, dict]]:
    found = []
    for block in response.read().decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_events_lead_from_the_queue_to_the_images(ask):
    told = events(ask("text/event-stream", num_images=2))
    names = [name for name, _ in told]
    assert names == ["queued", "started", *["preview"] * 12, "completed"]
    assert told[1][1]["steps"] == 6
    seen = [(data["image"], data["step"]) for name, data in told if name == "preview"]
    assert sorted(seen) == [(i, s) for i in range(2) for s in range(1, 7)]
    expected = images(ask(num_images=2))
    assert np.array_equal([opened(data) for data in told[-1][1]["images"]], expected)


def test_what_goes_wrong_later_is_an_event_too(ask):
    told = events(
        ask("text/event-stream", num_images=8, num_inference_steps=1000, deadline_seconds=0.01)
    )
    assert [name for name, _ in told][-1] == "error"
    assert told[-1][1]["status"] == 503
    assert "deadline" in told[-1][1]["detail"]


# Editing ------------------------------------------------------------------------------------------


def test_strength_says_how_much_of_an_image_is_left(ask, slope):
    def distance(strength: float) -> float:
        answer = ask(init_image=encoded(slope), strength=strength, num_inference_steps=20)
        assert answer.json()["used"]["strength"] == strength
        return float(np.abs(images(answer)[0] - slope).mean())

    assert distance(0.1) < distance(0.5) < distance(0.9)
    whole = images(ask(init_image=encoded(slope), strength=1.0))
    assert np.array_equal(whole, images(ask()))


def test_what_the_mask_leaves_dark_is_kept(ask, slope):
    mask = np.zeros((16, 16))
    mask[:, 8:] = 255
    made = images(ask(init_image=encoded(slope), mask=encoded(mask)))[0]
    assert np.abs(made[:, :8] - slope[:, :8]).max() <= 1
    assert np.abs(made[:, 8:] - slope[:, 8:]).mean() > 10


def test_pad_keeps_all_of_an_image_and_what_it_adds(ask, slope):
    """With next to no noise the answer is the image as the model was given it."""
    wide = np.repeat(slope, 2, axis=1)

    def kept(**fields: str) -> np.ndarray:
        answer = ask(init_image=encoded(wide), mask=encoded(np.zeros_like(wide)), **fields)
        return images(answer)[0]

    assert np.abs(kept()[:, 0] - wide[:, 8]).max() <= 1  # the middle
    padded = kept(fit="pad")
    assert padded[:4].min() == padded[12:].min() == 255
    painted = ask(init_image=encoded(wide), mask=encoded(np.full_like(wide, 255)), fit="pad")
    assert np.abs(images(painted)[0][:4] - 255).max() <= 1  # white edges stay
    assert np.abs(kept(fit="stretch")[:, 0] - wide[:, :2].mean(axis=1)).max() <= 12


def test_the_range_and_the_frames_of_an_image_can_be_chosen(ask):
    camera = base64.b64encode(png16(CAMERA)).decode()
    blank = encoded(np.zeros((16, 16)))

    def kept(**fields: str) -> np.ndarray:
        return images(ask(init_image=camera, mask=blank, fit="stretch", **fields))[0]

    assert kept().max() < 20
    assert kept(range="bits").max() > 230
    animation = base64.b64encode(gif([RED, "blue"])).decode()
    assert ask(init_image=animation).json()["errors"][0]["pointer"] == "/init_image"
    assert ask(init_image=animation, frames="first").status_code == 200


def test_an_inverted_image_comes_back(ask, slope):
    def error(steps: int) -> float:
        answer = ask(init_image=encoded(slope), invert=True, num_inference_steps=steps)
        assert answer.json()["used"]["sampler"] == "ddim"
        return float(np.abs(images(answer)[0] - slope).mean())

    unrelated = float(np.abs(images(ask())[0] - slope).mean())
    assert error(200) < 0.1 * unrelated
    assert error(200) < error(10)


def test_images_lead_from_one_seed_to_another(ask):
    between = images(ask(num_images=5, seed=3, seed_to=4))
    assert np.array_equal(between[0], images(ask(seed=3))[0])
    assert np.array_equal(between[4], images(ask(seed=4))[0])
    assert len({image.tobytes() for image in between}) == 5


def test_a_disturbance_begins_where_it_is_asked_for(ask):
    def walk(**body: object) -> list[bytes]:
        answer = ask(trajectory=True, **body)
        return [opened(step["x_t"]).tobytes() for step in answer.json()["trajectories"][0]]

    calm, disturbed = walk(), walk(disturb={"at": 3, "strength": 0.5})
    assert [a == b for a, b in zip(calm, disturbed, strict=True)] == [True] * 3 + [False] * 3


def test_guidance_outside_of_its_interval_is_off(ask):
    plain = images(ask(class_label=0))
    guided = images(ask(class_label=0, guidance_scale=4.0))
    never = images(ask(class_label=0, guidance_scale=4.0, guidance_interval=[1.5, 1.6]))
    always = images(ask(class_label=0, guidance_scale=4.0, guidance_interval=[0, 1000]))
    assert not np.array_equal(plain, guided)
    assert np.array_equal(never, plain)
    assert np.array_equal(always, guided)


def test_a_class_is_guided_as_its_model_says_unless_the_request_does(
    client, ask, model_archive, slope
):
    archive = model_archive((16, 16), ("dark", "light"), guidance_scale=4.0)
    assert client.put("/models/guided", content=archive).status_code in (200, 201)

    def guided(**body: object) -> httpx.Response:
        return ask(model="guided", **body)

    own, plain = guided(class_label=0), guided(class_label=0, guidance_scale=1)
    assert own.json()["used"]["guidance_scale"] == 4.0
    assert np.array_equal(images(own), images(ask(class_label=0, guidance_scale=4.0)))
    assert np.array_equal(images(plain), images(ask(class_label=0)))
    assert not np.array_equal(images(plain), images(own))
    again = client.post("/sample/again", json=plain.json()["recipe"], headers=JSON)
    assert np.array_equal(images(again), images(plain))
    for other in (guided(), guided(class_label=0, init_image=encoded(slope), invert=True)):
        assert other.json()["used"]["guidance_scale"] == 1.0


def test_bfloat16_is_said_to_be_used_and_changes_images_a_little(ask):
    exact = images(ask())
    answer = ask(precision="bfloat16")
    used = resolve_precision("bfloat16")  # float32 on a CPU that has nothing less
    assert answer.json()["used"]["precision"] == answer.headers["Diffusion-Precision"] == used
    assert np.abs(images(answer) - exact).mean() < 5


# Refusals -----------------------------------------------------------------------------------------


def test_a_deadline_that_cannot_be_met_is_answered_at_once(ask):
    answer = ask(num_images=8, num_inference_steps=1000, deadline_seconds=0.01)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert "deadline" in answer.json()["detail"]


def test_a_dark_picture_is_warned_of_and_a_range_brightens_it(ask):
    camera = np.linspace(0, 4000, 256).reshape(16, 16).astype(np.uint16)  # 12 bits in 16
    buffer = io.BytesIO()
    Image.fromarray(camera).save(buffer, "PNG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    dark = ask(init_image=picture, mask=picture)
    of_image, of_mask = dark.json()["warnings"]
    assert of_image.startswith("init_image: 1 of 1 images")
    assert of_mask.startswith("mask: 1 of 1 images")
    assert dark.headers["diffusion-warning"] == f"{of_image}; {of_mask}"
    bright = ask(init_image=picture, mask=picture, range="data")
    assert bright.json()["warnings"] == []
    assert "diffusion-warning" not in bright.headers


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"strength": 0.5}, "/strength"),
        ({"mask": encoded(np.zeros((4, 4)))}, "/mask"),
        ({"init_image": "!"}, "/init_image"),
        ({"init_image": base64.b64encode(b"no image").decode()}, "/init_image"),
        ({"invert": True}, "/invert"),
        ({"invert": True, "init_image": encoded(np.ones((16, 16))), "sampler": "heun"}, "/sampler"),
        ({"seed_to": 4}, "/seed_to"),
        ({"disturb": {"at": 6, "strength": 1}}, "/disturb/at"),
        ({"disturb": {"at": 0, "strength": 0}}, "/disturb/strength"),
        ({"guidance_interval": [9, 3], "class_label": 0}, "/guidance_interval"),
        ({"class_label": [0], "num_images": 2}, "/class_label"),
        ({"spacing": "even"}, "/spacing"),
        ({"deadline_seconds": 0}, "/deadline_seconds"),
        ({"precision": "float16"}, "/precision"),
        ({"num_inference_steps": 1001}, "/num_inference_steps"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_field(ask, body, pointer):
    answer = ask(**body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_net_with_a_group_for_each_channel_is_no_reason_to_refuse_a_model(client, model_archive):
    archive = model_archive(image_size=(8, 8), norm_num_groups=8)
    assert client.put("/models/groups", content=archive).status_code == 201
    request = {"model": "groups", "num_inference_steps": 2}
    assert client.post("/sample", json=request).status_code == 200
