"""The page of a model: try it, the same request as code that really runs, scores, downloads."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from app.registry.example import ARCHIVE
from tests.app.console.buttons import assert_all_are_pressed
from tests.app.console.visits import DIGITS, LONG, assert_accessible, upload_model, visit

ROOT = Path(__file__).parents[3]
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def emoji(service: httpx.Client) -> str:
    upload_model(service, "emoji", ARCHIVE.read_bytes())
    return "emoji"


@pytest.fixture(scope="module")
def trained(service: httpx.Client) -> str:
    """A model that has just begun to learn digits."""
    service.put("/datasets/learned", content=DIGITS.read_bytes()).raise_for_status()
    body = {"dataset": "learned", "steps": 20, "batch_size": 8, "model_name": "pupil"}
    job = service.post("/train-jobs", json=body).raise_for_status().headers["location"]
    while not (state := service.get(job, params={"wait": 30}).json())["done"]:
        pass
    assert state["status"] == "succeeded", state
    return "pupil"


def images_of_the_service(service: httpx.Client, **request: object) -> list[np.ndarray]:
    headers = {"Accept": "application/json"}
    made = service.post("/sample", json=request, headers=headers).raise_for_status().json()
    return [pixels(base64.b64decode(image)) for image in made["images"]]


def pixels(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image).astype(int)


def shown(images: Locator) -> list[np.ndarray]:
    """The images that the page shows, from their data: addresses."""
    sources = [str(image.get_attribute("src")) for image in images.all()]
    return [pixels(base64.b64decode(source.partition(",")[2])) for source in sources]


def shown_code(page: Page, label: str) -> Locator:
    return page.locator(f'pre[aria-label="{label}"]')


# Try it -------------------------------------------------------------------------------------------


def test_images_appear_on_the_page_and_are_those_of_the_request(page, service, emoji):
    visit(page, "#/models/emoji", "emoji")
    expect(
        page.get_by_text("Makes 32 × 32 colour images of 9 classes: activities,")
    ).to_be_visible()
    tried = page.get_by_role("region", name="Try it")
    tried.get_by_label("Class").select_option("food")
    tried.get_by_role("button", name="Make images").click()
    expect(tried.get_by_text("seed 0: the same seed makes the same images")).to_be_visible(
        timeout=LONG
    )
    images = tried.get_by_role("img")
    expect(images).to_have_count(4)
    request = {"model": emoji, "class_label": "food", "num_images": 4, "seed": 0}
    expected = images_of_the_service(service, **request)
    assert all(map(np.array_equal, shown(images), expected))
    assert_accessible(page)

    tried.get_by_role("button", name="Make others").click()
    others = tried.get_by_text(re.compile("seed [1-9][0-9]*: the same"))
    expect(others).to_be_visible(timeout=LONG)
    seed = re.search(r"seed (\d+)", others.text_content() or "")[1]
    assert not np.array_equal(shown(images)[0], expected[0])
    code = shown_code(page, "curl").text_content() or ""
    assert f'"seed":{seed}' in code
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    expect(tried.get_by_label("Class")).to_have_value("food")
    expect(tried.get_by_label("Seed")).to_have_value(seed)
    tried.get_by_role("link", name="More settings and tools").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("emoji")


def test_images_are_stopped_and_a_refusal_stands_at_its_field(page, service, model_archive):
    upload_model(service, "plain", model_archive((64, 64)))
    visit(page, "#/models/plain", "plain")
    expect(page.get_by_text("Makes 64 × 64 greyscale images.")).to_be_visible()
    tried = page.get_by_role("region", name="Try it")
    expect(tried.get_by_label("Class")).to_have_count(0)
    tried.get_by_label("How many").fill("64")
    tried.get_by_role("button", name="Make images").click()
    tried.get_by_role("button", name="Stop").click()
    expect(tried.get_by_role("button", name="Make images")).to_be_enabled()
    expect(tried.get_by_role("alert")).to_have_count(0)
    tried.get_by_label("Seed").fill("9" * 30)
    tried.get_by_role("button", name="Make images").click()
    expect(tried.get_by_role("alert")).to_have_count(1)
    expect(tried.get_by_label("Seed")).to_have_attribute("aria-invalid", "true")


# The same request as code -------------------------------------------------------------------------


@pytest.fixture
def code(page, emoji):
    """code(language, block): what the page shows for it, of two foods of seed 7."""
    visit(page, "#/models/emoji?class_label=food&num_images=2&seed=7", "emoji")

    def read(language: str, block: str) -> str:
        page.get_by_role("tab", name=language, exact=True).click()
        return shown_code(page, block).text_content() or ""

    return read


@pytest.fixture
def foods(service, emoji) -> list[np.ndarray]:
    request = {"model": emoji, "class_label": "food", "num_images": 2, "seed": 7}
    return images_of_the_service(service, **request)


def run(command: list[str], folder: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_curl_line_makes_the_same_images(code, foods, tmp_path):
    run(["bash", "-ec", code("curl", "curl")], tmp_path)
    grid = pixels((tmp_path / "images.png").read_bytes())
    assert np.array_equal(grid, np.hstack(foods))


def test_the_python_program_makes_the_same_images(code, foods, tmp_path):
    (tmp_path / "images.py").write_text(code("Python", "Python"))
    run([sys.executable, "images.py"], tmp_path)
    for i, expected in enumerate(foods):
        assert np.array_equal(pixels((tmp_path / f"{i}.png").read_bytes()), expected)


@pytest.mark.skipif(NODE is None, reason="there is no node")
def test_the_javascript_module_makes_the_same_images(code, foods, tmp_path):
    (tmp_path / "images.mjs").write_text(code("JavaScript", "JavaScript"))
    run([str(NODE), "images.mjs"], tmp_path)
    for i, expected in enumerate(foods):
        assert np.array_equal(pixels((tmp_path / f"{i}.png").read_bytes()), expected)


def test_the_lines_for_onnx_make_the_same_images_to_one_grey_level(code, foods, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    run(["bash", "-ec", code("ONNX", "Python with ONNX")], tmp_path)
    made = pixels((tmp_path / "images.png").read_bytes())
    assert np.abs(made - np.hstack(foods)).max() <= 1


@pytest.mark.skipif(NODE is None, reason="there is no node")
def test_the_module_for_onnx_calls_what_the_reader_offers(code, tmp_path):
    """The reader itself needs a browser and onnxruntime-web; test_portable.py runs it."""
    text = code("ONNX", "JavaScript with ONNX")
    reader = (ROOT / "docs" / "portable" / "sample.js").read_text()
    (imported,) = re.findall(r"import \{ (.*) \} from \"./sample.js\"", text)
    for name in imported.split(", "):
        assert re.search(rf"^export .*\b{name}\b", reader, re.MULTILINE)
    stub = """
        export const load = async (network) => network.byteLength;
        export async function* sample(...given) { console.log(JSON.stringify(given, (name, value) =>
            typeof value === "bigint" ? `${value}n` : value)); yield 0; }
    """
    (tmp_path / "sample.js").write_text(stub)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    files = """
        globalThis.fetch = async (name) => ({
            json: async () => name.endsWith("card.json")
                ? { class_names: ["drink", "food"] } : { tables: ["first"] },
            arrayBuffer: async () => new ArrayBuffer(5),
        });
    """
    (tmp_path / "files.js").write_text(files)
    (tmp_path / "page.js").write_text(text)
    command = [str(NODE), "--import", "./files.js", "page.js"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    given = [5, {"class_names": ["drink", "food"]}, "first", "7n", 2, 1]
    assert json.loads(done.stdout) == given


def test_code_is_copied_and_the_tabs_follow_the_arrow_keys(page, emoji):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, "#/models/emoji", "emoji")
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("button", name="Copied as curl")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == shown_code(page, "curl").text_content()
    page.get_by_role("tab", name="curl").press("ArrowRight")
    expect(page.get_by_role("tab", name="Python")).to_be_focused()
    expect(page.get_by_role("tab", name="Python")).to_have_attribute("aria-selected", "true")
    expect(shown_code(page, "Python")).to_be_visible()
    assert_accessible(page)


# The link, the card's details and what is done with a model ---------------------------------------


def test_the_link_is_copied_and_says_what_it_needs(page, emoji):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, "#/models/emoji?seed=3", "emoji")
    link = page.get_by_role("region", name="Link")
    link.get_by_role("button", name="Copy link").click()
    expect(page.get_by_text("The link is copied.")).to_be_visible()
    address = page.evaluate("navigator.clipboard.readText()")
    assert address == page.url.partition("?")[0]
    expect(link.get_by_text("works on this computer only")).to_be_visible()
    expect(link.get_by_text("diffusion models share")).to_have_count(0)  # there are no keys


def test_downloads_and_trainings_begin_at_the_page(page, emoji):
    visit(page, "#/models/emoji", "emoji")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download emoji", exact=True).click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert "model_index.json" in {Path(name).name for name in archive.namelist()}
    with page.expect_download() as download:
        page.get_by_role("link", name="Download emoji as ONNX").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert "network.onnx" in archive.namelist()
    for link, value in (("Fine-tune", "fine_tune emoji"), ("Distil", "distill emoji")):
        page.get_by_role("link", name=f"{link} emoji").click()
        page.get_by_text("Everything else, and why").click()
        expect(page.get_by_label("Begins with", exact=True)).to_have_value(value)
        page.go_back()


def test_a_license_is_changed(page, service, model_archive):
    upload_model(service, "licensed", model_archive())
    visit(page, "#/models/licensed", "licensed")
    facts = page.get_by_role("region", name="Facts")
    for text in ("MIT", "CC-BY-4.0"):
        facts.get_by_role("button", name="Change the license of licensed").click()
        assert_accessible(page)
        facts.get_by_label("License of the weights").fill(text)
        facts.get_by_role("button", name="Cancel" if text == "MIT" else "Save").click()
    expect(facts.get_by_text("CC-BY-4.0")).to_be_visible()
    assert service.get("/models/licensed").json()["license"] == "CC-BY-4.0"


def test_a_trained_model_says_from_what_and_is_measured(page, service, trained):
    visit(page, f"#/models/{trained}", trained)
    facts = page.get_by_role("region", name="Facts")
    expect(facts.get_by_role("link", name="learned", exact=True)).to_be_visible()
    expect(facts.get_by_text(re.compile("20 steps"))).to_be_visible()
    expect(
        facts.get_by_text(re.compile("parameters, .* in float32, .* for an image"))
    ).to_be_visible()
    scores = page.get_by_role("region", name="Scores")
    expect(scores.get_by_role("img", name=f"Images by {trained}")).to_be_visible()
    for button in (re.compile("Measure how good it is"), re.compile("^in (bfloat|float|int)")):
        scores.get_by_role("button", name=button).first.click()
        expect(scores.get_by_text("Measuring: ")).to_be_visible()
        newest = service.get("/evaluations").json()["items"][0]
        assert newest["model"] == trained
        service.post(newest["links"]["cancel"]).raise_for_status()
    assert newest["config"]["precision"] in ("bfloat16", "float32", "int8")


def test_scores_are_said_in_a_sentence_beside_the_nearest_training_images(
    page, service, model_archive
):
    upload_model(service, "judged", model_archive())
    service.put("/datasets/judging", content=DIGITS.read_bytes()).raise_for_status()
    body = {"model": "judged", "dataset": "judging", "num_images": 40, "features": "random"}
    address = service.post("/evaluations", json=body).raise_for_status().headers["location"]
    while not (job := service.get(address, params={"wait": 30}).json())["done"]:
        pass
    made, real, noise = (job["result"][part]["frechet"] for part in ("made", "real", "noise"))
    assert noise > 10 * real
    assert made > noise / 1.5, "random weights make noise"
    visit(page, "#/models", "Models")
    verdict = "about as far from the real ones as pure noise is"
    card = page.get_by_role("listitem").filter(has_text="judged")
    expect(card.get_by_text(verdict)).to_be_visible()
    card.get_by_role("link", name="Open").click()
    scores = page.get_by_role("region", name="Scores")
    expect(scores.get_by_text(verdict)).to_be_visible()
    expect(scores.get_by_text(re.compile(r"real images .*, noise "))).to_have_count(3)
    scores.get_by_text("The nearest training images").click()
    picture = scores.get_by_role("img", name=re.compile("three nearest training images"))
    expect(picture).not_to_have_js_property("naturalWidth", 0)
    assert_accessible(page)


def test_a_model_is_deleted_and_brought_back(page, service, model_archive):
    upload_model(service, "unloved", model_archive())
    visit(page, "#/models/unloved", "unloved")

    def delete(answer: str) -> None:
        page.get_by_role("button", name="Delete unloved").click()
        page.get_by_role("dialog").get_by_role("button", name=answer).click()

    delete("No")
    assert service.get("/models/unloved").is_success
    delete("Delete")
    expect(page.get_by_role("heading", level=1, name="Models")).to_be_visible()
    assert service.get("/models/unloved").status_code == 404
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("link", name="unloved", exact=True)).to_be_visible()


def test_a_model_that_is_not_there_is_said(page):
    visit(page, "#/models/nobody", "nobody")
    expect(page.get_by_role("alert")).to_contain_text("nobody")


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_not_wider_than_the_window(page, emoji, width):
    page.set_viewport_size({"width": width, "height": 780})
    visit(page, "#/models/emoji", "emoji")
    for name in ("curl", "Python", "JavaScript", "ONNX"):
        page.get_by_role("tab", name=name, exact=True).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_button_is_known_and_pressed(request):
    assert_all_are_pressed(request, {"models/a"})
