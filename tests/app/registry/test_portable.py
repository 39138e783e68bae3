"""Models downloaded as ONNX: both readers make the images that the service makes."""

import base64
import functools
import io
import json
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from models.diffusion.config import ModelConfig, SamplingConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import MAX_SEED, normal
from models.diffusion.schedule import ScheduleConfig
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.pipeline.archive import write_model_archive
from models.pipeline.torch_folder import save_model
from models.sampling.samplers import SAMPLERS
from tests.app.conftest import needs

ROOT = Path(__file__).parents[3]
READER = ROOT / "examples" / "portable"
PAGE = ROOT / "docs" / "portable"
LIBRARY = PAGE / "node_modules" / "onnxruntime-web"
GREY = ModelConfig(
    UNetConfig(1, 1, (8, 8), norm_num_groups=4, attention_head_dim=4, num_class_embeds=4),
    ScheduleConfig("linear"),
    "v",
    0.5,
    (8, 8),
    ("cat", "dog", "owl"),
    sampling=SamplingConfig(guidance_scale=2.0),
)
COLOURED = ModelConfig(  # 105 numbers to an image: noise in pairs has one too many
    UNetConfig(3, 3, (8,), 1, ("AttnDownBlock2D",), ("AttnUpBlock2D",), 4, 4),
    ScheduleConfig("edm"),
    "edm",
    0.5,
    (5, 7),
)
DISTILLED = replace(COLOURED, consistency=True)
MODELS = {"grey": GREY, "coloured": COLOURED, "distilled": DISTILLED}
PLAIN = ["grey", "coloured"]
OTHERS = [name for name, entry in SAMPLERS.items() if not entry.for_distilled]


@pytest.fixture(scope="module", autouse=True)
def models(client, tmp_path_factory):
    """Models with random weights, uploaded."""
    for name, config in MODELS.items():
        folder = tmp_path_factory.mktemp(name)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            net = UNet(config.net)
            torch.nn.init.normal_(net.conv_out.weight, std=0.1)
        save_model(DiffusionModel(config, net), folder / "model", {})
        write_model_archive(folder / "model", folder / "model.zip")
        answer = client.put(f"/models/{name}", content=(folder / "model.zip").read_bytes())
        assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
def folders(client, models, tmp_path_factory):
    """The downloads, unpacked: a folder for each model."""
    found = {}
    for name in MODELS:
        answer = client.get(f"/models/{name}/download", params={"format": "onnx"})
        assert answer.status_code == 200, answer.text
        found[name] = tmp_path_factory.mktemp("portable") / name
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            archive.extractall(found[name])
    return found


def images_of_the_service(client, model, **request):
    body = {"model": model, "precision": "float32", **request}
    # On a connection of its own: one that was idle while a page computed may just be closing.
    address, headers = client.base_url.join("/sample"), {"Accept": "application/json"}
    answer = httpx.post(address, json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return [pixels(base64.b64decode(image)) for image in answer.json()["images"]]


def pixels(file):
    return np.asarray(Image.open(io.BytesIO(file))).astype(int)


def assert_same(found, expected):
    """To one grey level; and they are images, not all one grey."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert other.std() > 10
        assert np.abs(one - other).max() <= 1


# The download -------------------------------------------------------------------------------------


def test_it_has_the_network_the_tables_the_card_and_a_definition(client, folders):
    folder = folders["grey"]
    assert {file.name for file in folder.iterdir()} == {
        "README.md",
        "card.json",
        "network.onnx",
        "samplers.json",
    }
    card, model = json.loads((folder / "card.json").read_text()), client.get("/models/grey").json()
    assert card.items() >= model["details"].items()
    assert (card["name"], card["digest"]) == ("grey", model["digest"])


def test_it_says_its_length_its_name_and_its_version(client):
    get = functools.partial(client.get, "/models/grey/download")
    one, two = (get(params={"format": "onnx"}) for _ in range(2))
    assert int(one.headers["Content-Length"]) == len(one.content)
    assert 'filename="grey-onnx.zip"' in one.headers["Content-Disposition"]
    assert one.headers["ETag"] == two.headers["ETag"]
    assert one.content == two.content
    others = [get(), get(params={"format": "onnx", "sampler": "ddim"})]
    assert len({answer.headers["ETag"] for answer in (one, *others)}) == 3


def test_tables_can_be_chosen(client):
    chosen = {"format": "onnx", "sampler": ["ddim", "unipc"], "num_inference_steps": [5, 7]}
    answer = client.get("/models/grey/download", params=chosen)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        tables = json.loads(archive.read("samplers.json"))["tables"]
    found = [(table["sampler"], table["num_inference_steps"]) for table in tables]
    assert found == [("ddim", 5), ("ddim", 7), ("unipc", 5), ("unipc", 7)]


@pytest.mark.parametrize(
    ("query", "parameter", "words"),
    [
        ({"format": "pickle"}, "format", "'diffusers' or 'onnx'"),
        ({"format": "onnx", "sampler": "magic"}, "sampler", "'ddim'"),
        ({"format": "onnx", "sampler": "consistency"}, "sampler", "this model takes one of"),
        ({"format": "onnx", "num_inference_steps": 0}, "num_inference_steps", "in 1..1000"),
        (
            {"format": "onnx", "num_inference_steps": [1, 2, 3, 4, 5, 6]},
            "num_inference_steps",
            "5 items",
        ),
        ({"sampler": "ddim"}, "sampler", "format=onnx"),
        ({"format": "diffusers", "num_inference_steps": 5}, "num_inference_steps", "format=onnx"),
    ],
)
def test_what_does_not_fit_is_refused(client, query, parameter, words):
    answer = client.get("/models/grey/download", params=query)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["in"] == "query"
    assert error["parameter"] == parameter
    assert words in error["detail"]


def test_nothing_is_left_behind(client, settings):
    client.get("/models/grey/download", params={"format": "onnx"}).raise_for_status()
    deadline = time.monotonic() + 5  # it is removed once the answer is sent
    while list(settings.locations.data_dir.glob("tmp*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# The reader in Python -----------------------------------------------------------------------------


@pytest.fixture
def reader(monkeypatch):
    """The module examples/portable/sample.py."""
    monkeypatch.syspath_prepend(READER)
    import sample

    return sample


@pytest.fixture
def made_by_python(reader, folders):
    """made_by_python(model, sampler, steps, ...): images of the reader."""

    def make(model, sampler, steps, *arguments, **options):
        network = onnxruntime.InferenceSession(folders[model] / "network.onnx")
        card = json.loads((folders[model] / "card.json").read_text())
        tables = json.loads((folders[model] / "samplers.json").read_text())["tables"]
        names = [(table["sampler"], table["num_inference_steps"]) for table in tables]
        table = tables[names.index((sampler, steps))]
        images = reader.sample(network, card, table, *arguments, **options)
        return list(images.squeeze(3).astype(int) if images.shape[3] == 1 else images.astype(int))

    return make


@pytest.mark.parametrize("model", PLAIN)
@pytest.mark.parametrize("sampler", OTHERS)
def test_python_makes_the_same_images(client, made_by_python, model, sampler):
    made = made_by_python(model, sampler, 10, seed=3, num_images=2)
    request = {"sampler": sampler, "num_inference_steps": 10, "seed": 3, "num_images": 2}
    assert_same(made, images_of_the_service(client, model, **request))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_python_makes_the_same_images_of_a_distilled_model(client, made_by_python, steps):
    made = made_by_python("distilled", "consistency", steps, seed=3, num_images=2)
    request = {"num_inference_steps": steps, "seed": 3, "num_images": 2}
    assert_same(made, images_of_the_service(client, "distilled", **request))


@pytest.mark.parametrize("label", [1, [0, 2, 1]])
@pytest.mark.parametrize(("guidance", "seed"), [(None, 4), (1.0, 0), (2.5, MAX_SEED)])
def test_python_makes_classes_with_guidance(client, made_by_python, label, guidance, seed):
    made = made_by_python("grey", "euler_ancestral", 20, seed, 3, label, guidance)
    expected = images_of_the_service(
        client,
        "grey",
        sampler="euler_ancestral",
        num_inference_steps=20,
        seed=seed,
        num_images=3,
        class_label=label,
        **({} if guidance is None else {"guidance_scale": guidance}),
    )
    assert_same(made, expected)


def test_the_program_writes_a_file(client, folders, tmp_path):
    options = ["--seed", "9", "-n", "2", "--class", "owl", "--guidance", "1.5"]
    command = [sys.executable, READER / "sample.py", folders["grey"], *options]
    subprocess.run(command, cwd=tmp_path, check=True)
    made = np.hsplit(pixels((tmp_path / "images.png").read_bytes()), 2)
    request = {"seed": 9, "num_images": 2, "class_label": "owl", "guidance_scale": 1.5}
    assert_same(made, images_of_the_service(client, "grey", **request))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 105])
def test_python_makes_the_same_noise(reader, size):
    for seed, step in ((0, 0), (7, 2), (MAX_SEED, 1000)):
        expected = normal(seed, np.arange(3), step, (size,))
        assert np.abs(reader.normal(seed, 3, step, (size,)) - expected).max() < 1e-5


# The reader in JavaScript -------------------------------------------------------------------------


@contextmanager
def files_of(folder: Path) -> Iterator[str]:
    """The address of a server of files, as `python -m http.server` is one."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def page(browser):
    """The page of docs/portable. At the end: every request went to its own folder, and nothing was
    said in the browser's console."""
    needs(LIBRARY, f"npm install --prefix {PAGE.relative_to(ROOT)}")
    with files_of(PAGE) as address:
        page = browser.new_page()
        page.set_default_timeout(20_000)
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        yield page
        page.close()
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert said == []


def made_by_the_page(page, table, seed, count, label=None, guidance=1.0):
    page.get_by_label("Sampler and steps").select_option(table)
    page.get_by_label("Seed").fill(str(seed))
    page.get_by_label("Images").fill(str(count))
    page.get_by_label("Class").select_option(label or "any")
    page.get_by_label("Guidance").fill(str(guidance))
    page.get_by_role("button", name="Make images").click()
    page.get_by_text(re.compile(rf"^{count} images in")).wait_for()
    urls = page.evaluate(
        "[...document.querySelectorAll('canvas')].map(canvas => canvas.toDataURL())"
    )
    return [pixels(base64.b64decode(url.partition(",")[2]))[:, :, :3] for url in urls]


def load(page, folder):
    page.get_by_label("Folder of the model").set_input_files(folder)
    page.get_by_text(re.compile(rf"^{folder.name}: images of")).wait_for()


@pytest.mark.parametrize("model", PLAIN)
def test_the_page_makes_the_same_images(client, page, folders, model):
    load(page, folders[model])
    for sampler in OTHERS:
        made = made_by_the_page(page, f"{sampler}, 10", seed=3, count=2)
        if MODELS[model].channels == 1:
            made = [image[:, :, 0] for image in made]
        request = {"sampler": sampler, "num_inference_steps": 10, "seed": 3, "num_images": 2}
        assert_same(made, images_of_the_service(client, model, **request))


def test_the_page_makes_classes_with_guidance(client, page, folders):
    load(page, folders["grey"])
    assert page.get_by_label("Guidance").input_value() == "2"
    made = made_by_the_page(page, "euler_ancestral, 20", MAX_SEED, 3, "owl", 2.5)
    expected = images_of_the_service(
        client,
        "grey",
        sampler="euler_ancestral",
        num_inference_steps=20,
        seed=MAX_SEED,
        num_images=3,
        class_label="owl",
        guidance_scale=2.5,
    )
    assert_same([image[:, :, 0] for image in made], expected)


def test_javascript_makes_the_same_noise(page):
    code = """async ([seed, step, size]) => {
        const { normal } = await import("./noise.js");
        return [...normal(BigInt(seed), 3, step, size)];
    }"""
    for size in (1, 2, 3, 4, 5, 6, 7, 8, 105):
        for seed, step in ((0, 0), (7, 2), (MAX_SEED, 1000)):
            found = np.reshape(page.evaluate(code, [str(seed), step, size]), (3, size))
            expected = normal(seed, np.arange(3), step, (size,))
            assert np.abs(found - expected).max() < 1e-5


def test_the_page_says_what_a_folder_lacks(page, tmp_path):
    (tmp_path / "card.json").write_text("{}")
    page.get_by_label("Folder of the model").set_input_files(tmp_path)
    page.get_by_text("That failed: the folder lacks samplers.json, network.onnx").wait_for()
