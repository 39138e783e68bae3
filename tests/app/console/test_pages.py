"""The console in a real browser, on a real service."""

import base64
import io
import re
import threading
import time
import zipfile
from pathlib import Path
from statistics import median

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.app.console.buttons import assert_all_are_pressed
from tests.app.console.visits import (
    DIGITS,
    LONG,
    assert_accessible,
    upload_model,
    visit,
)
from tests.file_server import Asked, a_source

# The pages whose buttons are pressed here; those of the others are pressed in their own files.
PLACES = {"start", "noise", "datasets", "datasets/a", "training"}
PLACES |= {"training/a", "models", "sample", "trash"}
FOLLOWS_WITHIN = 0.1  # seconds, of the slider's picture at 64 x 64


# The whole loop -----------------------------------------------------------------------------------


def test_from_a_folder_of_images_to_new_ones(page, service):
    visit(page, "", "Train a diffusion model on your own images")
    assert_accessible(page)
    _upload(page)
    _train(page)
    _sample(page)
    _models(page)


def _upload(page: Page) -> None:
    page.get_by_role("link", name="Upload images").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose an archive or images").click()
    chooser.value.set_files(DIGITS)
    name = page.get_by_label("Name of the dataset")
    expect(name).to_have_value("digits")
    name.fill("seen-digits")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", level=1, name="seen-digits")).to_be_visible()
    expect(page.get_by_text("1,797 images ·").first).to_be_visible()
    expect(page.get_by_role("img", name="Some images of seen-digits")).to_have_js_property(
        "complete", True
    )
    assert_accessible(page)
    page.get_by_role("link", name="Datasets", exact=True).click()
    expect(page.get_by_role("link", name="seen-digits")).to_be_visible()
    assert_accessible(page)
    page.get_by_role("link", name="seen-digits").click()
    page.get_by_role("link", name="Train on it").click()


def _train(page: Page) -> None:
    page.get_by_text("Everything else, and why").click()
    expect(page.get_by_text(re.compile("what a CPU trains in the time")).first).to_be_visible()
    page.get_by_label("Steps, at most").fill("240")
    page.get_by_label("Steps between checkpoints").fill("60")
    page.get_by_label("Name of the model").fill("seen-model")
    page.get_by_label("Channels of the net").fill("8, 8")
    expect(page.get_by_text(re.compile("must divide block_out_channels")).first).to_be_visible()
    page.get_by_label("Channels of the net").fill("32, 32")
    page.get_by_label("Batch size").fill("16")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert_accessible(page)
    page.get_by_role("button", name="Train", exact=True).click()

    expect(page.get_by_role("heading", level=1, name="seen-model")).to_be_visible()
    setup = page.get_by_role("region", name="Choices and reasons")
    expect(setup.get_by_role("row", name=re.compile("Batch size"))).to_contain_text("16")
    expect(setup.get_by_role("row", name=re.compile("The noise schedule"))).to_contain_text("edm")
    curve = page.get_by_role("img", name=re.compile("The training loss"))
    expect(curve).to_be_visible(timeout=LONG)
    points = int(curve.get_attribute("data-points") or "0")
    expect(page.get_by_text(re.compile(r"\d s left"))).to_be_visible()
    expect(curve).not_to_have_attribute("data-points", str(points), timeout=LONG)
    assert int(curve.get_attribute("data-points") or "0") > points
    expect(page.get_by_label("Progress").get_by_text("succeeded")).to_be_visible(timeout=LONG)
    expect(page.get_by_role("img", name=re.compile("Samples after"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("squared error"))).to_be_visible()
    assert_accessible(page)


def _sample(page: Page) -> None:
    page.get_by_role("link", name="Make images").click()
    page.get_by_label("Class", exact=True).select_option("7")
    page.get_by_text("Sampler, steps, guidance, seed").click()
    page.get_by_label("Seed").fill("11")
    page.get_by_label("Steps").fill("12")
    page.get_by_role("button", name="Make images").click()
    first = page.get_by_role("region", name="seen-model: 7", exact=True)
    expect(first.get_by_text("dpmpp_2m, 12 steps, seed 11")).to_be_visible(timeout=LONG)
    expect(first.get_by_role("img")).to_have_count(8)
    final = first.get_by_role("img").first.get_attribute("src")
    first.get_by_label("The clean image, as predicted at step").fill("1")
    expect(first.get_by_text("1 of 12")).to_be_visible()
    assert first.get_by_role("img").first.get_attribute("src") != final
    first.get_by_label("The clean image, as predicted at step").fill("12")
    expect(first.get_by_role("img").first).to_have_attribute("src", str(final))
    assert_accessible(page)
    _make_again(page, first, str(final))
    _repaint(page, first)
    _disturb(page, first)
    _copy_the_request(page, first)


def _make_again(page: Page, first, final: str) -> None:
    first.get_by_role("button", name="Make again").click()
    again = page.get_by_role("region", name="seen-model: 7, again")
    expect(again.get_by_role("button", name="Make again")).to_be_visible(timeout=LONG)
    assert again.get_by_role("img").first.get_attribute("src") == final
    first.get_by_role("button", name="Interpolate").click()
    between = page.get_by_role("region", name="from one noise to another")
    expect(between.get_by_role("button", name="Make again")).to_be_visible(timeout=LONG)


def _repaint(page: Page, first) -> None:
    first.get_by_role("button", name="Image 3").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Repaint")).to_be_disabled()
    canvas = dialog.get_by_role("img", name=re.compile("The part to repaint"))
    canvas.hover()
    page.mouse.down()
    page.mouse.move(600, 500, steps=4)
    page.mouse.up()
    expect(dialog.get_by_role("button", name="Repaint")).to_be_enabled()
    assert_accessible(page)
    dialog.get_by_role("button", name="Clear").click()
    dialog.get_by_role("button", name="Lower half").click()
    dialog.get_by_role("button", name="Repaint").click()
    painted = page.get_by_role("region", name="Repainted")
    expect(painted.get_by_role("button", name="Make again")).to_be_visible(timeout=LONG)
    source = _pixels(first.get_by_role("img").nth(2))
    for i in range(8):
        made = _pixels(painted.get_by_role("img").nth(i))
        assert made.crop((0, 0, 8, 3)).tobytes() == source.crop((0, 0, 8, 3)).tobytes()
    assert any(
        _pixels(painted.get_by_role("img").nth(i)).tobytes() != source.tobytes() for i in range(8)
    )


def _pixels(image) -> Image.Image:
    """Of an <img>, as the browser drew it."""
    pixels = image.evaluate(
        """image => {
            const canvas = document.createElement("canvas");
            const context = canvas.getContext("2d");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            context.drawImage(image, 0, 0);
            return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
        }"""
    )
    return Image.frombytes("RGBA", (8, 8), bytes(pixels)).convert("L")


def _disturb(page: Page, first) -> None:
    first.get_by_text("Disturb a step, and see it corrected").click()
    first.get_by_label(re.compile("Before step")).fill("3")
    first.get_by_role("button", name="Disturb").click()
    disturbed = page.get_by_role("region", name="Disturbed before step 4")
    expect(disturbed.get_by_role("table")).to_be_visible(timeout=LONG)
    rows = disturbed.get_by_role("row")
    expect(rows).to_have_count(3)
    before, after = (
        [image.get_attribute("src") for image in rows.nth(i).get_by_role("img").all()]
        for i in (1, 2)
    )
    assert before[:2] == after[:2]
    assert before[3] != after[3]
    assert_accessible(page)


def _copy_the_request(page: Page, first) -> None:
    first.get_by_text("Copy the request").click()
    assert '"seed":11' in (first.get_by_label("curl", exact=True).text_content() or "")
    python = first.get_by_label("Python", exact=True).text_content() or ""
    assert "from client.client import Client" in python
    assert "service.sample(" in python
    with page.expect_download() as download:
        first.get_by_role("button", name="Download all").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert len(archive.namelist()) == 8


def _models(page: Page) -> None:
    page.get_by_role("link", name="Models", exact=True).click()
    card = _card(page, "seen-model")
    expect(card.get_by_role("img", name="Images by seen-model")).to_be_visible()
    expect(card.get_by_text("Makes 8 × 8 greyscale images of 10 classes")).to_be_visible()
    assert_accessible(page)
    card.get_by_role("link", name="Open the page of seen-model").click()
    expect(page.get_by_role("heading", level=1, name="seen-model")).to_be_visible()
    facts = page.get_by_role("region", name="Facts")
    expect(facts.get_by_role("link", name="seen-digits")).to_be_visible()
    expect(facts.get_by_text(re.compile("240 steps"))).to_be_visible()
    expect(
        facts.get_by_text(re.compile("parameters, .* in float32, .* for an image"))
    ).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download seen-model", exact=True).click()
    content = Path(download.value.path()).read_bytes()

    page.get_by_role("link", name="Models", exact=True).click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a zip").click()
    chooser.value.set_files({"name": "Again.zip", "mimeType": "application/zip", "buffer": content})
    expect(page.get_by_label("Name of the model")).to_have_value("again")
    page.get_by_role("button", name="Upload").click()
    expect(_card(page, "again")).to_have_count(1)


def _card(page: Page, name: str) -> Locator:
    return page.get_by_role("listitem").filter(
        has=page.get_by_role("heading", name=name, exact=True)
    )


# Datasets -----------------------------------------------------------------------------------------


def _mended(service: httpx.Client, name: str) -> dict[str, int]:
    classes: dict[str, int] = service.get(f"/datasets/{name}").raise_for_status().json()["classes"]
    return classes


def test_a_dataset_is_looked_at_and_mended(page, service):
    service.put("/datasets/to-mend", content=DIGITS.read_bytes()).raise_for_status()
    before = _mended(service, "to-mend")
    visit(page, "#/datasets/to-mend", "to-mend")
    images = page.get_by_role("region", name="Images")
    tiles = images.get_by_role("listitem")
    images.get_by_role("button", name=re.compile("^3 ")).click()
    expect(tiles.first.get_by_role("img", name=re.compile(r"^3\b"))).to_be_visible()
    images.get_by_role("button", name="Show more").click()
    expect(tiles).to_have_count(before["3"])

    tiles.nth(0).get_by_role("checkbox").check()
    tiles.nth(1).get_by_role("checkbox").check()
    expect(images.get_by_text("2 images are ticked.")).to_be_visible()
    assert_accessible(page)
    images.get_by_role("button", name="Remove", exact=True).click()
    expect(tiles).to_have_count(before["3"] - 2)

    tiles.nth(0).get_by_role("checkbox").check()
    images.get_by_label("Move to the class").fill("8")
    images.get_by_role("button", name="Move", exact=True).click()
    expect(images.get_by_role("button", name=f"8 {before['8'] + 1}")).to_be_visible()
    expect(tiles).to_have_count(before["3"] - 3)
    tiles.nth(0).get_by_role("img").drag_to(images.get_by_role("button", name=re.compile("^9 ")))
    expect(images.get_by_role("button", name=f"9 {before['9'] + 1}")).to_be_visible()
    expect(tiles).to_have_count(before["3"] - 4)

    images.get_by_label("New name of 3").fill("three")
    images.get_by_role("button", name="Rename", exact=True).click()
    expect(images.get_by_role("button", name=f"three {before['3'] - 4}")).to_be_visible()
    with page.expect_file_chooser() as chooser:
        images.get_by_role("button", name="Add images").click()
    chooser.value.set_files({"name": "n.png", "mimeType": "image/png", "buffer": _digit()})
    expect(images.get_by_role("button", name=f"three {before['3'] - 3}")).to_be_visible()
    left = before.pop("3") - 3
    changed = {"8": before["8"] + 1, "9": before["9"] + 1, "three": left}
    assert _mended(service, "to-mend") == before | changed

    versions = page.get_by_role("region", name="Versions")
    expect(versions.get_by_role("row")).to_have_count(1 + 6)
    versions.get_by_role("link", name="1", exact=True).click()
    expect(page.get_by_text("This is version 1.")).to_be_visible()
    expect(images.get_by_role("button", name="all 1,797")).to_be_visible()
    expect(images.get_by_role("checkbox")).to_have_count(0)


def _digit() -> bytes:
    with zipfile.ZipFile(DIGITS) as archive:
        image = Image.open(io.BytesIO(archive.read("0/0000.png"))).rotate(90)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_the_report_finds_copies_and_ticks_them(page, service):
    buffer = io.BytesIO(DIGITS.read_bytes())
    with zipfile.ZipFile(buffer, "a") as archive:
        for number in range(3):
            archive.writestr(f"0/copy{number}.png", archive.read("0/0000.png"))
    service.put("/datasets/copies", content=buffer.getvalue()).raise_for_status()
    visit(page, "#/datasets/copies", "copies")
    images = page.get_by_role("region", name="Images")
    images.get_by_role("button", name=re.compile("Look for duplicates")).click()
    report = page.get_by_role("region", name="Report")
    expect(report.get_by_text(re.compile("exact duplicate")).first).to_be_visible()
    assert_accessible(page)
    report.get_by_role("button", name="Tick 3 images").first.click()
    images.get_by_role("button", name="Remove", exact=True).click()
    expect(images.get_by_role("button", name="0 178", exact=True)).to_be_visible()
    expect(report.get_by_text(re.compile("exact duplicate"))).to_have_count(0)


def test_an_upload_says_how_its_classes_are_read(page, service):
    visit(page, "#/datasets", "Datasets")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose an archive or images").click()
    chooser.value.set_files(DIGITS)
    page.get_by_label("Name of the dataset").fill("unlabelled")
    page.get_by_text("How its classes and images are read").click()
    page.get_by_label("Classes from").fill("none")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", level=1, name="unlabelled")).to_be_visible()
    assert _mended(service, "unlabelled") == {}


# Noise --------------------------------------------------------------------------------------------


def test_the_picture_follows_the_slider(page):
    visit(page, "#/noise", "What noise does")
    slider = page.get_by_label(re.compile("t, of 1000 steps"))
    jumped = page.locator("img[data-method=closed_form]")
    walked = page.locator("img[data-method=step_by_step]")
    expect(jumped).to_have_attribute("data-t", "150")
    expect(walked).to_have_attribute("data-t", "150")
    assert jumped.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [64, 64]
    taken = [slider.evaluate(_MOVE, t) for t in range(40, 1000, 40)]
    assert median(taken) < FOLLOWS_WITHIN, taken
    expect(walked).to_have_attribute("data-t", "960")
    expect(page.get_by_role("img", name=re.compile("at 960 they are"))).to_be_visible()
    assert_accessible(page)


# Seconds from moving the slider to the picture of the new t being decoded.
_MOVE = """async (slider, t) => {
    const image = document.querySelector("img[data-method=closed_form]");
    const begun = performance.now();
    slider.value = t;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    while (image.dataset.t !== String(t)) await new Promise(requestAnimationFrame);
    await image.decode();
    return (performance.now() - begun) / 1000;
}"""


def test_a_picture_of_ones_own_is_noised_and_taken_away(page, picture):
    visit(page, "#/noise", "What noise does")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a picture").click()
    mine = {"name": "mine.png", "mimeType": "image/png", "buffer": picture(200, 100)}
    chooser.value.set_files(mine)
    shown = page.get_by_role("img", name="The picture without noise")
    page.wait_for_function(
        "image => image.naturalWidth === 64 && image.naturalHeight === 32",
        arg=shown.element_handle(),
    )
    page.get_by_role("combobox", name="Schedule").select_option("cosine")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download a strip").click()
    with Image.open(download.value.path()) as strip:
        assert strip.size == (8 * 64, 32)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download an animation").click()
    with Image.open(download.value.path()) as animation:
        assert animation.n_frames == 26

    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a picture").click()
    chooser.value.set_files({"name": "no.png", "mimeType": "image/png", "buffer": b"text"})
    expect(page.get_by_text("not an image that the browser can read")).to_be_visible()


# What goes wrong ----------------------------------------------------------------------------------


def test_a_url_is_fetched_and_what_fails_is_said(page):
    visit(page, "#/datasets", "Datasets")
    form = page.get_by_role("region", name="Fetch a dataset")

    def fetch(url: str) -> None:
        form.get_by_label("Or the URL of an archive").fill(url)
        expect(form.get_by_label("Name of its dataset")).to_have_value("more-digits")
        form.get_by_role("button", name="Fetch").click()

    with a_source(lambda asked: asked.say(b"", 404)) as source:
        fetch(source.url("/more-digits.zip?key=1"))
        failed = form.get_by_role("alert").filter(has_text="answered 404")
        expect(failed).to_be_visible(timeout=LONG)
    assert_accessible(page)
    form.get_by_role("button", name="Dismiss more-digits").click()
    expect(failed).to_have_count(0)

    fetch("ftp://example.org/more-digits.zip")
    expect(form.get_by_role("alert")).to_contain_text("url")
    with a_source(lambda asked: asked.say(DIGITS.read_bytes())) as source:
        fetch(source.url("/more-digits.zip"))
        expect(page.get_by_role("link", name="more-digits")).to_be_visible(timeout=LONG)
    assert_accessible(page)


def test_what_is_refused_is_said_where_it_arises(page):
    visit(page, "#/datasets", "Datasets")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose an archive or images").click()
    chooser.value.set_files({"name": "bad.zip", "mimeType": "application/zip", "buffer": b"text"})
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("alert")).to_contain_text("zip")
    visit(page, "#/datasets/nothing", "nothing")
    expect(page.get_by_role("alert")).to_contain_text("nothing")
    visit(page, "#/training/nothing", "Training")
    expect(page.get_by_role("alert")).to_contain_text("nothing")
    visit(page, "#/elsewhere", "Nothing here")


def test_a_lost_connection_is_noticed_and_mended(page):
    visit(page, "#/models", "Models")
    page.evaluate("window.here = true")
    page.context.set_offline(True)
    expect(page.get_by_text("The service does not answer")).to_be_visible()
    time.sleep(2)
    page.context.set_offline(False)
    expect(page.get_by_text("The service does not answer")).to_be_hidden()
    assert page.evaluate("window.here"), "the page was loaded again"


def test_images_that_a_broken_connection_has_cost_are_asked_for_again(page, service, model_archive):
    service.put("/models/frail", content=model_archive()).raise_for_status()
    visit(page, "#/sample?model=frail", "New images")
    page.get_by_label("How many").fill("1")
    page.context.set_offline(True)
    page.get_by_role("button", name="Make images").click()
    expect(page.get_by_role("alert")).to_contain_text("connection broke")
    page.context.set_offline(False)
    expect(page.get_by_text("The service does not answer")).to_be_hidden()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Make again")).to_be_visible(timeout=LONG)
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize(
    "hash_", ["", "#/noise", "#/datasets", "#/training", "#/models", "#/sample", "#/trash"]
)
def test_nothing_is_wider_than_the_window(page, hash_, width):
    page.set_viewport_size({"width": width, "height": 780})
    page.goto(f"/{hash_}")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_control_is_reached_by_keyboard(page):
    visit(page, "#/noise", "What noise does")
    slider = page.get_by_label(re.compile("t, of 1000 steps"))
    for _ in range(30):
        page.keyboard.press("Tab")
        if slider.evaluate("slider => slider === document.activeElement"):
            break
    else:
        pytest.fail("the slider never had the focus")
    page.keyboard.press("End")
    expect(page.locator("img[data-method=closed_form]")).to_have_attribute("data-t", "1000")


# Every button -------------------------------------------------------------------------------------


def _ask_for_long(page: Page, model: str, count: int) -> None:
    """Fill in so many images of so many steps that there is time to stop them."""
    visit(page, f"#/sample?model={model}", "New images")
    page.get_by_text("Sampler, steps, guidance, seed").click()
    page.get_by_label("Steps").fill("1000")
    page.get_by_label("How many").fill(str(count))


def _read_the_settings_of(page: Page, dialog: Locator, content: bytes) -> None:
    dialog.get_by_role("button", name="Close").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Settings from a picture").click()
    chooser.value.set_files({"name": "a.png", "mimeType": "image/png", "buffer": content})
    expect(page.get_by_label("How many")).to_have_value("2")
    expect(page.get_by_label("Seed")).not_to_have_value("")
    visit(page, '#/sample?model=tiles&num_images=2&also={"eta":0.5}', "New images")
    page.get_by_role("button", name="Leave these out").click()
    expect(page.get_by_text("also set: eta 0.5")).to_have_count(0)
    page.get_by_role("button", name="Image 2").first.click()


def test_guidance_is_that_of_the_model_until_it_is_moved(page, service, model_archive):
    upload_model(service, "guided", model_archive((8, 8), ("dark", "light"), guidance_scale=2.5))
    visit(page, "#/sample?model=guided&class=dark", "New images")
    page.get_by_text("Sampler, steps, guidance, seed").click()
    slider = page.get_by_label("Guidance")
    expect(slider).to_have_value("2.5")
    for scale in (None, "1"):
        if scale:
            slider.fill(scale)
        with page.expect_request("**/sample") as asked:
            page.get_by_role("button", name="Make images").click()
        assert (asked.value.post_data_json or {}).get("guidance_scale") == (scale and float(scale))
    expect(page.get_by_text(re.compile("steps, guidance 2.5, seed"))).to_be_visible(timeout=LONG)
    page.wait_for_url("**guidance=1*")
    page.reload()
    expect(slider).to_have_value("1")
    visit(page, '#/sample?model=guided&class=dark&also={"invert":true}', "New images")
    page.get_by_text("Sampler, steps, guidance, seed").click()
    expect(slider).to_have_value("1")


def test_an_image_is_downloaded_varied_and_copied(page, service, model_archive):
    upload_model(service, "tiles", model_archive())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, "#/sample?model=tiles", "New images")
    page.get_by_label("How many").fill("2")
    page.get_by_role("button", name="Make images").click()
    first = page.get_by_role("region", name="tiles", exact=True)
    first.get_by_role("button", name="Image 2").click(timeout=LONG)
    dialog = page.get_by_role("dialog")
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Download", exact=True).click()
    assert download.value.suggested_filename.endswith("-1.png")
    content = Path(download.value.path()).read_bytes()
    shown = first.get_by_role("img").nth(1).get_attribute("src")
    assert content == base64.b64decode(str(shown).partition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("PNG", (8, 8))
    _read_the_settings_of(page, dialog, content)
    parts = ("Upper half", "Lower half", "Left half", "Right half", "Middle")
    painted = dialog.get_by_role("img", name=re.compile("The part to repaint"))
    for part in parts:
        dialog.get_by_role("button", name=part).click()
        assert painted.evaluate(_PAINTED) == (0.25 if part == "Middle" else 0.5)
        dialog.get_by_role("button", name="Clear").click()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_have_count(0)
    first.get_by_role("button", name="Image 2").click()
    dialog.get_by_role("button", name="Variations").click()
    varied = page.get_by_role("region", name="Variations, 0.5")
    expect(varied.get_by_role("button", name="Make again")).to_be_visible(timeout=LONG)
    expect(varied.get_by_role("img")).to_have_count(8)

    first.get_by_text("Copy the request").click()
    first.get_by_role("button", name="Copy as Python").click()
    expect(first.get_by_role("button", name="Copied as Python")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == first.get_by_label("Python", exact=True).text_content()
    varied.get_by_role("button", name="Remove").click()
    expect(varied).to_have_count(0)
    first.get_by_role("button", name="Make others").click()
    both = page.get_by_role("region", name="tiles", exact=True)
    expect(both.get_by_role("button", name="Make others")).to_have_count(2, timeout=LONG)
    made = [region.get_by_role("img").first.get_attribute("src") for region in both.all()]
    assert made[0] != made[1]


# The share of a canvas that is painted.
_PAINTED = """canvas => {
    const { width, height } = canvas;
    const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, width, height);
    return data.filter((_, i) => i % 4 === 3).filter(Boolean).length / (width * height);
}"""


def test_images_are_stopped(page, service, model_archive):
    upload_model(service, "endless", model_archive())
    _ask_for_long(page, "endless", 64)
    page.get_by_role("button", name="Make images").click()
    batch = page.get_by_role("region", name="endless", exact=True)
    batch.get_by_role("button", name="Stop").click()
    expect(batch).to_have_count(0)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_many_images_are_an_order_with_its_archive(page, service, model_archive):
    upload_model(service, "many", model_archive())
    visit(page, "#/sample?model=many", "New images")
    number = page.get_by_label("How many")
    number.fill("20000")
    page.get_by_role("button", name="Order images").click()
    expect(page.get_by_role("alert")).to_have_count(1)
    expect(page.get_by_role("alert")).to_contain_text("num_images")
    expect(number).to_have_attribute("aria-invalid", "true")
    number.fill("70")
    page.get_by_role("button", name="Order images").click()
    order = page.get_by_role("region", name="70 images by many")
    expect(order.get_by_text("succeeded")).to_be_visible(timeout=LONG)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(order.get_by_role("img")).to_have_count(24)
    order.get_by_role("button", name="Show more").click()
    expect(order.get_by_role("img")).to_have_count(70)
    last = order.get_by_role("img").last
    last.scroll_into_view_if_needed()
    expect(last).to_have_js_property("naturalWidth", 8)
    assert_accessible(page)
    with page.expect_download() as download:
        order.get_by_role("link", name="Download all").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        pictures = [name for name in archive.namelist() if name.endswith(".png")]
    assert len(pictures) == 70

    order.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="No").click()
    order.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(order).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(order.get_by_role("img")).to_have_count(24)


def test_an_order_is_cancelled(page, service, model_archive):
    upload_model(service, "too-many", model_archive())
    _ask_for_long(page, "too-many", 10_000)
    page.get_by_role("button", name="Order images").click()
    order = page.get_by_role("region", name="10,000 images by too-many")
    order.get_by_role("button", name="Cancel").click()
    expect(order.get_by_text("cancelled", exact=True)).to_be_visible(timeout=LONG)


def test_what_is_deleted_comes_back_by_undo_or_from_the_trash(page, service):
    service.put("/datasets/unwanted", content=DIGITS.read_bytes()).raise_for_status()
    visit(page, "#/datasets/unwanted", "unwanted")

    def delete(answer: str) -> None:
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name=answer).click()

    delete("No")
    assert service.get("/datasets/unwanted").is_success
    delete("Delete")
    expect(page.get_by_role("heading", level=1, name="Datasets")).to_be_visible()
    expect(page.get_by_text("The dataset unwanted is deleted.")).to_be_visible()
    assert_accessible(page)
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("link", name="unwanted").click()
    expect(page.get_by_text("1,797 images ·").first).to_be_visible()
    delete("Delete")

    page.get_by_role("link", name="Trash").click()
    entry = page.get_by_role("listitem").filter(has_text="unwanted")
    expect(entry).to_contain_text("dataset")
    assert_accessible(page)
    entry.get_by_role("button", name="Restore").click()
    expect(page.get_by_text("The dataset unwanted is back.")).to_be_visible()
    expect(entry).to_have_count(0)
    assert service.get("/datasets/unwanted").is_success

    service.delete("/datasets/unwanted").raise_for_status()
    page.reload()
    entry.get_by_role("button", name="Remove for good").click()
    page.get_by_role("dialog").get_by_role("button", name="No").click()
    expect(entry).to_have_count(1)
    entry.get_by_role("button", name="Remove for good").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove for good").click()
    expect(entry).to_have_count(0)
    names = [each["name"] for each in service.get("/trash").json()["items"]]
    assert "unwanted" not in names


def test_a_failed_action_is_said_until_it_is_dismissed(page, service, model_archive):
    content = model_archive()
    upload_model(service, "rival", content)
    visit(page, "#/models/rival", "rival")
    page.get_by_role("button", name="Delete rival").click()
    service.delete("/models/rival").raise_for_status()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("rival")
    page.get_by_role("dialog").get_by_role("button", name="No").click()

    upload_model(service, "rival", content)
    page.reload()
    page.get_by_role("button", name="Delete rival").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_visible()
    upload_model(service, "rival", content)
    undo.click()
    alert = page.get_by_role("alert").filter(has_text="there is a model 'rival' by now")
    expect(alert).to_be_visible()
    assert_accessible(page)
    alert.get_by_role("button", name="Dismiss").click()
    expect(alert).to_have_count(0)

    page.evaluate(  # which no component handles
        """dispatchEvent(new PromiseRejectionEvent("unhandledrejection", {
            promise: Promise.resolve(), reason: new Error("Nobody has caught this."),
        }))"""
    )
    expect(page.get_by_role("alert")).to_contain_text("Nobody has caught this.")


def test_an_action_without_an_answer_is_said(page, service, model_archive):
    upload_model(service, "unreached", model_archive())
    visit(page, "#/models/unreached", "unreached")
    facts = page.get_by_role("region", name="Facts")
    facts.get_by_role("button", name="Change the license of unreached").click()
    page.context.set_offline(True)
    facts.get_by_role("button", name="Save").click()
    expect(facts.get_by_role("alert")).to_contain_text("The service did not answer")
    page.context.set_offline(False)
    expect(page.get_by_text("The service does not answer")).to_be_hidden()
    facts.get_by_role("button", name="Cancel").click()
    expect(facts.get_by_label("License of the weights")).to_have_count(0)


def test_a_model_s_card_shows_images_and_leads_on(page, service, model_archive):
    upload_model(service, "uploaded", model_archive())
    visit(page, "#/models", "Models")
    card = _card(page, "uploaded")
    card.get_by_role("button", name="Show some images").click()
    expect(card.locator(".tiles img")).to_have_count(16, timeout=LONG)
    card.get_by_role("link", name="Make images").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("uploaded")


def test_photographs_are_not_taken_for_a_model(page, picture, tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(picture())
    visit(page, "#/models", "Models")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(tmp_path)
    expect(page.get_by_role("alert")).to_contain_text("a model is a diffusers folder")
    expect(page.get_by_role("button", name="Upload", exact=True)).to_have_count(0)


def test_folders_are_uploaded_and_added(page, service, picture, tmp_path):
    for label in ("cats", "dogs"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for number in range(2):
            content = picture(24 + number, 16)
            (tmp_path / "pets" / label / f"{number}.png").write_bytes(content)
    visit(page, "#/datasets", "Datasets")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(tmp_path / "pets")
    expect(page.get_by_label("Name of the dataset")).to_have_value("pets")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", level=1, name="pets")).to_be_visible()
    assert _mended(service, "pets") == {"cats": 2, "dogs": 2}
    images = page.get_by_role("region", name="Images")
    images.get_by_role("checkbox").first.check()
    images.get_by_role("button", name="Untick").click()
    expect(images.get_by_role("checkbox", checked=True)).to_have_count(0)
    (tmp_path / "more" / "cats").mkdir(parents=True)
    (tmp_path / "more" / "cats" / "9.png").write_bytes(picture(30, 30))
    with page.expect_file_chooser() as chooser:
        images.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(tmp_path / "more")
    expect(images.get_by_role("button", name="cats 3")).to_be_visible()


def test_a_fetch_is_cancelled(page):
    visit(page, "#/datasets", "Datasets")
    form = page.get_by_role("region", name="Fetch a dataset")
    ended = threading.Event()

    def stall(asked: Asked) -> None:
        asked.send_response(200)
        asked.send_header("Content-Length", "1000000")
        asked.end_headers()
        asked.wfile.write(b"PK")
        ended.wait(60)

    with a_source(stall) as source:
        form.get_by_label("Or the URL of an archive").fill(source.url("/slow.zip"))
        form.get_by_role("button", name="Fetch").click()
        cancel = form.get_by_role("button", name="Cancel slow")
        cancel.click()
        expect(cancel).to_have_count(0, timeout=LONG)
        ended.set()
    expect(form.get_by_role("alert")).to_have_count(0)


def test_a_training_is_paused_resumed_cancelled_and_deleted(page, service):
    service.put("/datasets/drill", content=DIGITS.read_bytes()).raise_for_status()
    body = {"dataset": "drill", "steps": 100_000, "batch_size": 8, "checkpoint_every": 5}
    job = service.post("/train-jobs", json=body).raise_for_status().json()
    visit(page, f"#/training/{job['id']}", job["model_name"])
    status = page.get_by_role("region", name="Progress")
    page.get_by_role("button", name="Pause").click()
    expect(status.get_by_text("paused", exact=True)).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Resume").click()
    expect(status.get_by_text("running", exact=True)).to_be_visible(timeout=LONG)
    expect(page.get_by_role("img", name=re.compile("Samples after"))).to_be_visible(timeout=LONG)
    status.get_by_role("button", name="Edit").click()
    status.get_by_role("textbox", name="Tags").fill("drilled")
    status.get_by_role("button", name="Save").click()
    expect(status.get_by_role("link", name="drilled")).to_be_visible()
    visit(page, "", "Train a diffusion model on your own images")
    page.get_by_role("link", name="Watch it").click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="No").click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the training").click()
    expect(status.get_by_text("cancelled", exact=True)).to_be_visible(timeout=LONG)
    page.get_by_role("link", name="Go on with more time").click()
    expect(page.get_by_text("Goes on from an earlier job")).to_be_visible()
    page.go_back()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1, name="Training")).to_be_visible()
    assert service.get(f"/train-jobs/{job['id']}").status_code == 404
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("link", name=job["model_name"]).click()
    expect(status.get_by_text("cancelled", exact=True)).to_be_visible()


def test_trainings_are_ticked_to_be_compared(page, service):
    service.put("/datasets/drill", content=DIGITS.read_bytes()).raise_for_status()
    names = ("ticked-1", "ticked-2")
    for name in names:
        body = {"dataset": "drill", "steps": 10, "model_name": name}
        job = service.post("/train-jobs", json=body).raise_for_status().json()
        service.post(job["links"]["cancel"])
    visit(page, "#/training", "Training")
    for name in names:
        page.get_by_role("checkbox", name=f"Compare {name}").check()
    page.get_by_role("button", name="Untick all").click()
    for name in names:
        page.get_by_role("checkbox", name=f"Compare {name}").check()
    page.get_by_role("button", name="Compare 2 trainings").click()
    expect(page.get_by_role("heading", level=1, name="Compare trainings")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("ticked-1"))).to_be_visible()


def test_the_start_page_leads_on(page):
    for link, heading in (
        ("Dissolve a picture", "What noise does"),
        ("Train", "Training"),
        ("Make images", "New images"),
    ):
        visit(page, "", "Train a diffusion model on your own images")
        page.get_by_role("main").get_by_role("link", name=link, exact=True).click()
        expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()


def test_light_and_dark_are_chosen_and_remembered_by_the_documentation_too(page):
    page.emulate_media(color_scheme="light")
    visit(page, "", "Train a diffusion model on your own images")
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("link", name="API").click()
    expect(page.get_by_text("New images from a model", exact=True)).to_be_visible()
    assert _brightness(page, "html") < 0.2
    assert _brightness(page, ".opblock-summary-path >> nth=0", "color") > 0.6
    page.go_back()
    page.get_by_role("button", name="Light").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")


def test_the_documentation_is_dark_where_the_system_is(page):
    page.emulate_media(color_scheme="dark")
    page.goto("/docs")
    expect(page.get_by_text("New images from a model", exact=True)).to_be_visible()
    assert _brightness(page, "html") < 0.2
    page.emulate_media(color_scheme="light")
    expect(page.locator("html")).not_to_have_class(re.compile("dark-mode"))
    assert _brightness(page, ".opblock-summary-path >> nth=0", "color") < 0.4


def _brightness(page: Page, selector: str, of: str = "background-color") -> float:
    """0 is black, 1 is white."""
    script = "(place, of) => getComputedStyle(place).getPropertyValue(of)"
    colour = page.locator(selector).evaluate(script, of)
    return sum(float(part) for part in re.findall(r"[\d.]+", colour)[:3]) / (3 * 255)


def test_a_seed_that_is_refused_is_said_once_at_its_field(page):
    visit(page, "#/noise", "What noise does")
    expect(page.locator("img[data-method=step_by_step]")).to_be_visible()
    seed = page.get_by_label("Seed of the noise")
    seed.fill("-3")
    expect(page.get_by_role("alert")).to_have_count(1)
    expect(seed).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Download a strip").click()
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("alert")).to_have_count(1)
    assert_accessible(page)
    seed.fill("3")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_every_button_is_known_and_pressed(request):
    assert_all_are_pressed(request, PLACES)
