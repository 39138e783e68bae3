"""The Compare page, used as a person uses it: a grid, two models side by side, a blind test."""

import csv
import io
import json
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.app.console.buttons import assert_all_are_pressed
from tests.app.console.visits import DIGITS, LONG, assert_accessible, upload_model, visit

TINY = {"block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 4}


@pytest.fixture(scope="module")
def models(service: httpx.Client, model_archive) -> None:
    """Two uploads of the same weights with two classes, and a smaller model without any."""
    archive = model_archive(image_size=(16, 16), class_names=("dark, very", "light"))
    for name in ("tones", "twin"):
        upload_model(service, name, archive)
    upload_model(service, "small", model_archive())


@pytest.fixture(scope="module")
def trained(service: httpx.Client) -> str:
    """A model that knows its dataset."""
    service.put("/datasets/digits", content=DIGITS.read_bytes()).raise_for_status()
    request = {"dataset": "digits", "steps": 4, "batch_size": 4, "net": TINY, "checkpoint_every": 2}
    job = service.post("/train-jobs", json=request | {"model_name": "learned"}).json()
    for _ in range(60):
        answer = service.get(f"/train-jobs/{job['id']}", params={"wait": 5}).json()
        if answer["done"]:
            break
    assert answer["status"] == "succeeded"
    return "learned"


def open_grid(page: Page, **query: str) -> None:
    visit(page, f"#/compare?{httpx.QueryParams(query)}", "Compare settings")
    expect(page.get_by_role("button", name="Make the grid")).to_be_visible()


def sources(page: Page, selector: str) -> list[str]:
    return [str(image.get_attribute("src")) for image in page.locator(selector).all()]


# A grid -------------------------------------------------------------------------------------------


def test_a_grid_of_steps_and_samplers_fills_and_is_downloaded_with_its_axes(page, service, models):
    visit(page, "", "Train a diffusion model on your own images")
    page.get_by_role("link", name="Compare", exact=True).click()
    page.get_by_label("Model", exact=True).select_option("tones")
    page.get_by_label("Steps: the values").fill("2, 3,5")
    names = [each["name"] for each in service.get("/samplers").json()["samplers"]]
    ticks = page.get_by_role("group", name="Sampler: the values")
    ticked = [name for name in names[:4] if ticks.get_by_label(name, exact=True).is_checked()]
    ticks.get_by_label(ticked[0], exact=True).uncheck()
    page.get_by_label("Seed").fill("7")
    expect(page.get_by_text(f"{3 * len(ticked[1:])} images")).to_be_visible()
    assert_accessible(page)
    page.get_by_role("button", name="Make the grid").click()
    result = page.get_by_role("region", name="The grid")
    expect(result.get_by_role("button", name="Download the picture")).to_be_visible(timeout=LONG)
    assert result.get_by_role("columnheader").all_inner_texts() == ["2", "3", "5"]
    assert result.get_by_role("rowheader").all_inner_texts() == ticked[1:]
    assert len(set(sources(page, ".grid img"))) == 3 * len(ticked[1:])
    assert_accessible(page)
    with page.expect_download() as download:
        result.get_by_role("button", name="Download the picture").click()
    assert download.value.suggested_filename == "tones-num_inference_steps-sampler.png"
    picture = np.asarray(Image.open(Path(download.value.path())).convert("L"))
    body = {"model": "tones", "seed": 7}
    body["x"] = {"setting": "num_inference_steps", "values": [2, 3, 5]}
    body["y"] = {"setting": "sampler", "values": ticked[1:]}
    again = service.post("/sample/grid", json=body).raise_for_status().content
    assert picture.shape == np.asarray(Image.open(io.BytesIO(again))).shape[:2]
    assert picture.shape[1] > 3 * 112
    assert picture[:40].min() < 128, "the labels of the columns"
    assert picture[:, :60].min() < 128, "the labels of the rows"

    result.get_by_role("button", name=f"Steps 5, Sampler {ticked[2]}", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text(ticked[2], exact=True)).to_be_visible()
    assert_accessible(page)
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Download").click()
    alone = {**body, "x": None, "y": None, "num_inference_steps": 5, "sampler": ticked[2]}
    image = service.post("/sample", json={k: v for k, v in alone.items() if v}).content
    shown, expected = (
        np.asarray(Image.open(source)).astype(int)
        for source in (Path(download.value.path()), io.BytesIO(image))
    )
    assert np.abs(shown - expected).max() <= 1
    dialog.get_by_role("button", name="Close").click()
    result.get_by_role("button", name=f"Steps 5, Sampler {ticked[2]}", exact=True).click()
    page.get_by_role("dialog").get_by_role("link", name="Use its settings").click()
    expect(page.get_by_role("heading", level=1, name="New images")).to_be_visible()
    query = dict(httpx.URL(page.url.replace("#/", "")).params)
    assert query == {
        "model": "tones",
        "sampler": ticked[2],
        "num_images": "1",
        "steps": "5",
        "seed": "7",
    }


def test_a_link_shows_the_settings_again(page, models):
    open_grid(page, model="tones")
    page.get_by_label("From left to right").select_option("Class")
    page.get_by_label("From top to bottom").select_option("Guidance")
    page.get_by_label("Guidance: the values").fill("1, 3")
    ticks = page.get_by_role("group", name="Class: the values")
    ticks.get_by_label("light").uncheck()
    page.get_by_label("Steps", exact=True).fill("4")
    page.get_by_label("Seed").fill("12")
    expect(page).to_have_url(re.compile("seed=12"))
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    ticks = page.get_by_role("group", name="Class: the values")
    expect(ticks.get_by_label("dark, very")).to_be_checked()
    expect(ticks.get_by_label("any")).to_be_checked()
    expect(ticks.get_by_label("light")).not_to_be_checked()
    expect(page.get_by_label("Guidance: the values")).to_have_value("1, 3")
    expect(page.get_by_label("Steps", exact=True)).to_have_value("4")
    expect(page.get_by_label("Seed")).to_have_value("12")
    expect(page.get_by_label("Model", exact=True)).to_have_value("tones")
    page.get_by_label("From top to bottom").select_option("nothing: one row")
    page.reload()
    expect(page.get_by_label("From top to bottom")).to_have_value("")
    expect(page.get_by_text("2 images")).to_be_visible()


def test_what_is_wrong_is_said_at_its_field(page, models):
    open_grid(page, model="tones", x="num_inference_steps", xs="2,2000", y="")
    page.get_by_role("button", name="Make the grid").click()
    values = page.get_by_label("Steps: the values")
    expect(values).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text(re.compile(r"2000.*1\.\.1000"))).to_be_visible()
    assert_accessible(page)
    values.fill(", ".join(map(str, range(1, 66))))
    expect(page.get_by_text("65 images; a grid has at most 64")).to_be_visible()
    expect(page.get_by_role("button", name="Make the grid")).to_be_disabled()
    values.fill("")
    expect(page.get_by_text("Choose a value for each direction.")).to_be_visible()
    values.fill("2")
    page.get_by_label("Guidance", exact=True).fill("3")
    page.get_by_role("button", name="Make the grid").click()
    expect(page.get_by_label("Guidance", exact=True)).to_have_attribute("aria-invalid", "true")


def test_a_grid_can_be_stopped(page, models):
    open_grid(page, model="tones", x="num_inference_steps", xs="1,1000", y="seed", ys="1,2,3,4,5,6")
    page.get_by_role("button", name="Make the grid").click()
    progress = page.get_by_role("progressbar", name="Progress of the grid")
    expect(progress).to_be_visible()
    expect(page.locator(".grid img").first).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text(re.compile(r"Stopped\. \d+ of 12 images"))).to_be_visible()
    expect(progress).to_have_count(0)
    expect(page.locator(".grid img").first).to_be_visible()
    expect(page.get_by_role("button", name="Download the picture")).to_have_count(0)


def test_checkpoints_of_a_training_are_compared(page, trained):
    open_grid(page, model=trained)
    page.get_by_label("From left to right").select_option("Checkpoint of a training")
    page.get_by_label("From top to bottom").select_option("Class")
    expect(page.get_by_label("Training", exact=True)).to_contain_text(f"{trained} (succeeded)")
    expect(page.get_by_label("after 2 steps")).to_be_checked()
    expect(page.get_by_label("From top to bottom").get_by_text("Model")).to_have_count(0)
    page.get_by_label("Steps", exact=True).fill("2")
    page.get_by_role("button", name="Make the grid").click()
    result = page.get_by_role("region", name="The grid")
    expect(result.get_by_role("button", name="Download the picture")).to_be_visible(timeout=LONG)
    assert result.get_by_role("columnheader").all_inner_texts() == ["2", "4"]
    expect(result.get_by_role("img")).to_have_count(8)
    result.get_by_role("img").first.click()
    expect(page.get_by_role("dialog").get_by_text(f"{trained}@2")).to_be_visible()
    expect(page.get_by_role("dialog").get_by_role("link")).to_have_count(0)
    page.reload()
    expect(page.get_by_label("after 2 steps")).to_be_checked()


# Side by side -------------------------------------------------------------------------------------


def test_two_models_of_the_same_weights_make_the_same_pairs(page, models):
    visit(page, "#/compare?model=tones", "Compare settings")
    page.get_by_role("link", name="Side by side").click()
    page.get_by_label("One model").select_option("tones")
    page.get_by_label("The other").select_option("small")
    expect(page.get_by_text("Their noise has different shapes")).to_be_visible()
    expect(page.get_by_role("button", name="Make pairs")).to_be_disabled()
    page.get_by_label("The other").select_option("twin")
    page.get_by_label("Class").select_option("light")
    page.get_by_label("How many pairs").fill("3")
    page.get_by_label("Steps").fill("3")
    page.get_by_role("button", name="Make pairs").click()
    button = page.get_by_role("button", name="Download the picture")
    expect(button).to_be_visible(timeout=LONG)
    images = sources(page, ".pair img")
    assert len(set(images)) == 6, "each carries the name of its model"
    pixels = [shown_pixels(page, f".pair img >> nth={i}") for i in range(6)]
    assert pixels[::2] == pixels[1::2]
    assert len(set(map(str, pixels))) == 3
    assert_accessible(page)
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == "tones-twin.png"
    seed = int(page.get_by_label("First seed").input_value())
    assert page.locator(".pairs figcaption").all_inner_texts() == [
        f"seed {seed + i}" for i in range(3)
    ]
    page.reload()
    expect(page.get_by_label("The other")).to_have_value("twin")
    expect(page.get_by_label("First seed")).to_have_value(str(seed))
    page.get_by_label("Steps").fill("1000")
    page.get_by_label("How many pairs").fill("32")
    page.get_by_role("button", name="Make pairs").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text(re.compile("Stopped"))).to_be_visible()


def shown_pixels(page: Page, selector: str) -> list[int]:
    found: list[int] = page.locator(selector).evaluate(
        """image => {
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
        }"""
    )
    return found


# A blind test -------------------------------------------------------------------------------------


def votes(page: Page) -> list[dict[str, str]]:
    stored = page.evaluate("Object.values(localStorage).filter(v => v.startsWith('['))")
    return json.loads(stored[0]) if stored else []


def press(page: Page, key: str) -> None:
    before = len(votes(page))
    expect(page.get_by_role("button", name="Left")).to_be_visible(timeout=LONG)
    page.keyboard.press(key)
    page.wait_for_function(
        "n => JSON.parse(Object.values(localStorage).find(v => v.startsWith('['))).length === n",
        arg=before + 1,
    )


def test_a_blind_test_counts_and_survives_a_reload(page, models):
    visit(page, "#/compare/blind-test?model=tones&other=tones", "Blind test")
    expect(page.get_by_role("button", name="Begin")).to_be_disabled()
    page.get_by_label("Against").select_option("twin")
    page.context.set_offline(True)
    page.get_by_role("button", name="Begin").click()
    again = page.get_by_role("button", name="Try again")
    expect(again).to_be_visible()
    page.context.set_offline(False)
    again.click()
    expect(page.get_by_role("heading", name="Which is better?")).to_be_visible()
    left = page.get_by_role("button", name="Left")
    expect(left).to_be_visible(timeout=LONG)
    assert "tones" not in page.get_by_role("region", name="The test").inner_text()
    left.click()
    page.get_by_role("button", name="Right").click()
    page.get_by_role("button", name="Cannot tell").click()
    for key in "120":
        press(page, key)
    kept = votes(page)
    sides = ["left", "right", None, "left", "right", None]
    assert [vote["chosen"] for vote in kept] == [
        vote[side] if side else "" for vote, side in zip(kept, sides, strict=True)
    ]
    assert all({vote["left"], vote["right"]} == {"tones", "twin"} for vote in kept)
    page.keyboard.press("?")
    shortcuts = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(shortcuts.get_by_text("chooses the left image")).to_be_visible()
    page.keyboard.press("1")
    shortcuts.get_by_role("button", name="Close").click()
    assert len(votes(page)) == 6
    result = page.get_by_role("region", name="Result")
    expect(result).to_have_count(0)
    assert_accessible(page)

    page.reload()
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_text(re.compile("6 rounds kept in this browser"))).to_be_visible()
    page.get_by_role("button", name="End the test").click(timeout=LONG)
    wins = sum(vote["chosen"] == "tones" for vote in kept)
    expect(result).to_contain_text(f"tones was chosen in {wins} of 4")
    expect(result).to_contain_text("2 rounds without a decision are not counted")
    page.get_by_role("button", name="Go on").click()
    expect(result).to_have_count(0)
    for _ in range(10):  # always the same model
        expect(left).to_be_visible(timeout=LONG)
        press(page, "1")
    expect(result).to_be_visible()
    with page.expect_download() as download:
        result.get_by_role("button", name="Download as CSV").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert rows == votes(page)
    assert len(rows) == 16
    assert_accessible(page)
    result.get_by_role("button", name="Reset").click()
    page.get_by_role("dialog").get_by_role("button", name="No").click()
    result.get_by_role("button", name="Reset").click()
    page.get_by_role("button", name="Forget them").click()
    expect(page.get_by_text("0 rounds so far")).to_be_visible()
    assert votes(page) == []


@pytest.mark.parametrize(
    ("wins", "rounds", "interval", "sentence"),
    [
        (14, 20, "48% to 85%", "tones was preferred in 14 of 20 rounds; that could still be"),
        (18, 20, "70% to 97%", "tones was preferred in 18 of 20 rounds; that is unlikely to be"),
        (10, 20, "30% to 70%", "no difference was seen"),
    ],
)
def test_the_tally_says_what_could_be_chance(page, models, wins, rounds, interval, sentence):
    """The intervals are those of scipy.stats.binomtest(...).proportion_ci(method="wilson")."""
    visit(page, "#/compare/blind-test?model=tones&other=twin", "Blind test")
    page.get_by_role("button", name="Begin").click()
    press(page, "1")
    page.evaluate(
        """([wins, rounds]) => {
            const key = Object.keys(localStorage).find((key) => key.startsWith("diffusion-blind"));
            const chosen = (i) => (i < wins ? "tones" : "twin");
            const votes = Array.from({ length: rounds }, (_, i) => ({ chosen: chosen(i) }));
            localStorage.setItem(key, JSON.stringify(votes));
        }""",
        [wins, rounds],
    )
    page.reload()
    page.get_by_role("button", name="Begin").click()
    result = page.get_by_role("region", name="Result")
    expect(result).to_contain_text(sentence)
    expect(result.get_by_role("listitem").first).to_contain_text(interval)


def test_which_one_is_real(page, trained):
    visit(page, f"#/compare/blind-test?model={trained}", "Blind test")
    page.get_by_label("Against").select_option("real images of digits")
    page.get_by_label("Class").select_option("7")
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_role("heading", name="Which one is real?")).to_be_visible()
    expect(page.get_by_role("button", name="Left")).to_be_visible(timeout=LONG)
    sizes = page.locator(".choices img").evaluate_all("images => images.map(i => i.naturalWidth)")
    assert sizes[0] == sizes[1]
    for _ in range(3):
        press(page, "1")
    kept = votes(page)
    assert all({vote["left"], vote["right"]} == {trained, "the real images"} for vote in kept)
    page.get_by_role("button", name="End the test").click()
    right = sum(vote["chosen"] == "the real images" for vote in kept)
    expect(page.get_by_text(f"You recognised the real image in {right} of 3")).to_be_visible()
    assert "real=yes" in page.url


# Everywhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["", "/side-by-side", "/blind-test"])
def test_it_fits_a_phone(page, models, view):
    page.set_viewport_size({"width": 360, "height": 700})
    query = "model=tones&other=twin&x=num_inference_steps&xs=1,2,3,4,5,6&y=class_label"
    visit(page, f"#/compare{view}?{query}", re.compile("."))
    button = page.get_by_role("button", name=re.compile("Make the grid|Make pairs|Begin"))
    button.click()
    expect(page.locator("main img").first).to_be_visible(timeout=LONG)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert_accessible(page)


def test_every_button_is_known_and_pressed(request):
    assert_all_are_pressed(request, {"compare", "compare/a"})
