"""The gallery in a real browser: what is sampled stays, is found, looked at and used again."""

import base64
import io
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from models.images.files import encode_image
from models.images.recipe import carried
from tests.app.console.buttons import assert_all_are_pressed
from tests.app.console.visits import LONG, assert_accessible, upload_model, visit

PLAIN = encode_image(np.full((8, 8, 1), 99, np.uint8), "png")

# Drops or pastes a file, as the browser does where somebody does so.
DROP = """([content, name]) => {
    const data = new DataTransfer();
    const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
    data.items.add(new File([bytes], name, { type: "image/png" }));
    const target = document.querySelector("main");
    for (const type of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(
            new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""
PASTE = """([content, text]) => {
    const data = new DataTransfer();
    if (text) data.setData("text/plain", text);
    if (content) {
        const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
        data.items.add(new File([bytes], "image.png", { type: "image/png" }));
    }
    document.querySelector("main").dispatchEvent(
        new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def model(service: httpx.Client, model_archive) -> str:
    upload_model(service, "tones", model_archive((16, 16), ("dark", "light")))
    return "tones"


@pytest.fixture
def kept(service: httpx.Client, model: str) -> list[dict]:
    """A gallery of four light ones, with the seed 2, before four dark ones."""
    empty(service)
    dark = keep(service, seed=1)
    return [*keep(service, seed=2, class_label="light"), *dark]


def empty(service: httpx.Client) -> None:
    while items := service.get("/pictures?limit=100").json()["items"]:
        service.delete("/pictures", params={"id": [item["id"] for item in items]})


def sampled(service: httpx.Client, **body: object) -> list[bytes]:
    request = {"model": "tones", "num_images": 4, "num_inference_steps": 3, "class_label": "dark"}
    answer = service.post("/sample", json=request | body, headers={"Accept": "application/json"})
    return [base64.b64decode(image) for image in answer.raise_for_status().json()["images"]]


def keep(service: httpx.Client, **body: object) -> list[dict]:
    files = [("image", file) for file in sampled(service, **body)]
    items: list[dict] = service.post("/pictures", files=files).raise_for_status().json()["items"]
    return items


def shots(page: Page) -> Locator:
    return page.get_by_role("list", name="Pictures").get_by_role("listitem")


def text_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def assert_filled(page: Page, **fields: str) -> None:
    expect(page.get_by_role("heading", level=1, name="New images")).to_be_visible()
    for label, value in fields.items():
        name = "How many" if label == "count" else label.capitalize()
        expect(page.get_by_label(name, exact=True)).to_have_value(value)


def test_what_is_sampled_stays(page, service, model):
    empty(service)
    for label, seed in (("dark", "5"), ("light", "6")):
        visit(page, f"#/sample?model={model}&class={label}&num_images=3&steps=2&seed={seed}", "New")
        page.get_by_role("button", name="Make images").click()
        expect(page.get_by_text("Kept in the gallery").first).to_be_visible(timeout=LONG)
    assert_accessible(page)
    page.get_by_role("link", name="the gallery").first.click()
    expect(shots(page)).to_have_count(6)
    page.reload()
    expect(shots(page)).to_have_count(6)
    expect(page.get_by_text("6 pictures.")).to_be_visible()
    expect(shots(page).first.get_by_role("img")).to_have_attribute("alt", "1: tones: light, seed 6")
    image = shots(page).first.get_by_role("img")
    expect(image).not_to_have_js_property("naturalWidth", 0)
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [128, 128]
    assert_accessible(page)


def test_what_is_not_to_be_kept_is_not(page, service, model):
    empty(service)
    visit(page, f"#/sample?model={model}&num_images=1&steps=2", "New images")
    page.get_by_label("Keep in the gallery").uncheck()
    page.reload()
    expect(page.get_by_label("Keep in the gallery")).not_to_be_checked()
    page.get_by_role("button", name="Make images").click()
    expect(page.get_by_role("button", name="Make again")).to_be_visible(timeout=LONG)
    page.get_by_label("Keep in the gallery").check()
    expect(page.get_by_text("Kept in the gallery")).to_have_count(0)
    assert service.get("/pictures").json()["items"] == []
    visit(page, "#/gallery", "Gallery")
    expect(page.get_by_text("Images that you make are kept here.")).to_be_visible()
    assert_accessible(page)
    page.get_by_role("link", name="Make some").click()
    expect(page.get_by_role("heading", level=1, name="New images")).to_be_visible()


def test_a_failure_to_keep_is_said_once_and_noted_at_each_batch(page, service, model):
    empty(service)
    page.route(
        "**/pictures", lambda route: route.fulfill(status=409, json={"detail": "it is full"})
    )
    visit(page, f"#/sample?model={model}&num_images=1&steps=2", "New images")
    page.get_by_role("button", name="Make images").click()
    notice = page.get_by_role("alert").filter(has_text="not kept in the gallery: it is full")
    expect(notice).to_be_visible(timeout=LONG)
    notice.get_by_role("button", name="Dismiss").click()
    page.get_by_role("button", name="Make again").click()
    expect(page.get_by_text("Not kept in the gallery: it is full")).to_have_count(2, timeout=LONG)
    expect(notice).to_have_count(0)


def test_pictures_are_found_by_what_they_are_and_links_find_them_again(page, service, kept):
    service.patch("/pictures", json={"ids": [kept[0]["id"], kept[5]["id"]], "add_tags": ["best"]})
    service.patch(kept[5]["links"]["self"], json={"notes": "A Moon"})
    visit(page, "#/gallery", "Gallery")
    expect(shots(page)).to_have_count(8)
    star = shots(page).nth(2).get_by_role("button", name="Star picture 3")
    shots(page).nth(2).hover()
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    for act, count in (
        (lambda: page.get_by_label("Class").select_option("light"), 4),
        (lambda: page.get_by_label("Tag", exact=True).select_option("best"), 1),
        (lambda: page.get_by_label("Class").select_option(""), 2),
        (lambda: page.get_by_label("In the notes").fill("moon"), 1),
        (lambda: page.get_by_label("In the notes").fill(""), 2),
        (lambda: page.get_by_label("From", exact=True).fill("2100-01-01"), 0),
    ):
        act()
        expect(shots(page)).to_have_count(count)
    expect(page.get_by_text("No pictures match.")).to_be_visible()
    page.get_by_role("button", name="Clear the filters").click()
    expect(shots(page)).to_have_count(8)
    page.get_by_label("Only with a star").check()
    page.get_by_label("To", exact=True).fill("2100-01-01")
    page.get_by_label("Model").select_option("tones")
    expect(shots(page)).to_have_count(1)
    address = page.url
    page.goto("/#/")
    page.goto(address)
    page.reload()
    expect(shots(page)).to_have_count(1)
    expect(page.get_by_label("Only with a star")).to_be_checked()
    expect(page.get_by_label("To", exact=True)).to_have_value("2100-01-01")
    expect(page.get_by_label("Model")).to_have_value("tones")
    assert service.get(kept[2]["links"]["self"]).json()["starred"]


def test_a_picture_is_enlarged_and_the_arrows_lead_on(page, service, kept):
    visit(page, "#/gallery?class=light", "Gallery")
    shots(page).first.get_by_role("link").click()
    dialog = page.get_by_role("dialog")
    place = dialog.locator(".steps .note")
    image = dialog.get_by_role("img")
    expect(image).not_to_have_js_property("naturalWidth", 0)
    shown = image.evaluate("""image => [image.naturalWidth, image.clientWidth,
        getComputedStyle(image).imageRendering]""")
    assert shown[0] == 16
    assert shown[1] >= 16 * 20
    assert shown[1] % 16 == 0
    assert shown[2] == "pixelated"
    assert_accessible(page)
    expect(place).to_have_text("1 of 4")
    expect(dialog.get_by_role("button", name="Previous")).to_be_disabled()
    page.keyboard.press("ArrowRight")
    expect(place).to_have_text("2 of 4")
    dialog.get_by_role("button", name="Next").click()
    expect(place).to_have_text("3 of 4")
    page.keyboard.press("ArrowLeft")
    expect(place).to_have_text("2 of 4")
    dialog.get_by_role("button", name="Previous").click()
    page.keyboard.press("ArrowRight")
    expect(place).to_have_text("2 of 4")
    assert kept[1]["id"] in page.url
    page.keyboard.press("s")
    expect(dialog.get_by_role("button", name="Star")).to_have_attribute("aria-pressed", "true")
    assert service.get(kept[1]["links"]["self"]).json()["starred"]
    dialog.get_by_role("button", name="Star").click()
    expect(dialog.get_by_role("button", name="Star")).to_have_attribute("aria-pressed", "false")
    facts = dialog.get_by_role("region", name="About the picture")
    for fact in ("light", "Seed2", "Steps3", "2 of 4", "16 × 16 pixels"):
        expect(facts).to_contain_text(fact)
    address = page.url
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(shots(page).nth(1).get_by_role("link")).to_be_focused()
    page.goto("/#/")
    page.goto(address)
    expect(place).to_have_text("2 of 4")


def test_notes_and_tags_are_saved_also_when_the_next_picture_is_shown(page, service, kept):
    visit(page, f"#/gallery?picture={kept[0]['id']}", "Gallery")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Notes").fill("the best s so far")
    dialog.get_by_label("Tags").fill("print, best,, ")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_label("Tags")).to_have_value("best, print")
    expect(dialog.get_by_role("button", name="Save")).to_be_disabled()
    saved = service.get(kept[0]["links"]["self"]).json()
    assert (saved["notes"], saved["tags"]) == ("the best s so far", ["best", "print"])
    assert not saved["starred"], "the letter s was typed, not pressed as a key"
    dialog.get_by_label("Tags").fill("x" * 41)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("at most 40")
    dialog.get_by_label("Tags").fill("print")
    dialog.get_by_label("Notes").fill("changed")
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        dialog.get_by_role("button", name="Next").click()
    expect(dialog.get_by_label("Notes")).to_have_value("")
    assert service.get(kept[0]["links"]["self"]).json()["notes"] == "changed"
    dialog.get_by_role("button", name="Previous").click()
    expect(dialog.get_by_label("Notes")).to_have_value("changed")


def test_a_picture_is_downloaded_copied_and_its_settings_are_back(page, service, kept):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, f"#/gallery?picture={kept[1]['id']}", "Gallery")
    dialog = page.get_by_role("dialog")
    with page.expect_download() as download:
        dialog.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "tones-2-1.png"
    content = Path(download.value.path()).read_bytes()
    assert content == service.get(kept[1]["links"]["file"]).content
    dialog.get_by_role("button", name="Copy image").click()
    expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate(
        """async () => {
            const [item] = await navigator.clipboard.read();
            const image = await createImageBitmap(await item.getType("image/png"));
            return [image.width, await (await item.getType("text/plain")).text()];
        }"""
    )
    assert copied == [16, page.url]
    dialog.get_by_role("link", name="Use its settings").click()
    settings = {"model": "tones", "class": "light", "count": "4", "steps": "3", "seed": "2"}
    assert_filled(page, **settings)
    page.goto("/#/sample")
    assert_filled(page, count="8")
    page.evaluate(PASTE, [text_of(content), copied[1]])  # the link, since the recipe is lost
    assert_filled(page, **settings)
    page.get_by_label("Seed").fill("7")
    page.wait_for_url(re.compile("seed=7"))
    page.evaluate(PASTE, ["", copied[1]])
    assert_filled(page, **settings)


def test_a_dropped_picture_brings_its_settings_back(page, service, model):
    empty(service)
    samplers = service.get("/samplers").json()["samplers"]
    other = next(s["name"] for s in samplers if not (s["is_default"] or s["for_distilled"]))
    (content,) = sampled(service, num_images=1, seed=8, guidance_scale=2.5, sampler=other)
    visit(page, "#/gallery", "Gallery")
    page.evaluate(DROP, [text_of(content), "mine.png"])
    assert_filled(page, model=model, steps="3", seed="8", sampler=other, guidance="2.5")
    expect(page.get_by_text("The settings of mine.png are filled in.")).to_be_visible()
    page.get_by_role("button", name="Make images").click()
    made = page.get_by_role("region", name="tones: dark").get_by_role("img")
    expect(made.first).to_be_visible(timeout=LONG)
    expect(page.get_by_text("Kept in the gallery")).to_be_visible(timeout=LONG)
    (again,) = service.get("/pictures").json()["items"]
    file = service.get(again["links"]["file"]).content
    assert pixels(file).tobytes() == pixels(content).tobytes()
    for place, heading in (("#/gallery", "Gallery"), ("#/sample", "New images")):
        visit(page, place, heading)
        page.evaluate(DROP, [text_of(PLAIN), "plain.png"])
        alert = page.get_by_role("alert").filter(has_text="plain.png does not bring its settings")
        expect(alert).to_contain_text("carries no recipe")
        alert.get_by_role("button", name="Dismiss").click()
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Settings from a picture").click()
        file = {"name": "chosen.png", "mimeType": "image/png", "buffer": content}
        chooser.value.set_files(file)
        assert_filled(page, seed="8")


def pixels(content: bytes) -> np.ndarray:
    assert carried(content)
    return np.asarray(Image.open(io.BytesIO(content)))


def test_what_the_form_has_no_field_for_is_said_and_can_be_left_out(page, service, model):
    empty(service)
    (item, *_) = keep(service, seed=4, seed_to=9, init_image=text_of(PLAIN), strength=0.7)
    visit(page, f"#/gallery?picture={item['id']}", "Gallery")
    dialog = page.get_by_role("dialog")
    expect(
        dialog.get_by_text("made with a start image, which the file does not hold")
    ).to_be_visible()
    expect(dialog.get_by_text("seed to")).to_be_visible()
    dialog.get_by_role("link", name="Use its settings").click()
    expect(page.get_by_text("also set: seed to 9")).to_be_visible()
    assert_accessible(page)
    with page.expect_request(lambda asked: asked.url.endswith("/sample")) as asked:
        page.get_by_role("button", name="Make images").click()
    body = asked.value.post_data_json
    assert (body["seed_to"], body["seed"], body.get("strength")) == (9, 4, None)
    page.get_by_role("button", name="Leave these out").click()
    expect(page.get_by_text("also set")).to_have_count(0)
    page.wait_for_url(lambda url: "also" not in url)
    visit(page, "#/sample?model=gone&class=dark&seed=3", "New images")
    expect(page.get_by_text("There is no model gone here")).to_be_visible()
    assert_filled(page, model=model, seed="3")


def test_several_are_tagged_and_deleted_and_come_back(page, service, kept):
    visit(page, "#/gallery", "Gallery")
    expect(shots(page)).to_have_count(8)
    shots(page).nth(1).get_by_role("checkbox").check(force=True)
    shots(page).nth(3).get_by_role("checkbox").click(force=True, modifiers=["Shift"])
    edits = page.get_by_role("form", name="Selected pictures")
    expect(edits.get_by_text("3 pictures are selected.")).to_be_visible()
    assert_accessible(page)
    edits.get_by_label("Tag").fill("row")
    edits.get_by_role("button", name="Add the tag").click()
    expect(page.get_by_label("Tag", exact=True).first).to_contain_text("row (3)")
    edits.get_by_role("button", name="Star", exact=True).click()
    expect(shots(page).nth(2).get_by_role("button")).to_have_attribute("aria-pressed", "true")
    edits.get_by_role("button", name="Take the star off").click()
    expect(shots(page).nth(2).get_by_role("button")).to_have_attribute("aria-pressed", "false")
    edits.get_by_role("button", name="Delete").click()
    expect(shots(page)).to_have_count(5)
    expect(edits).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(shots(page)).to_have_count(8)
    shots(page).nth(0).get_by_role("checkbox").check(force=True)
    edits.get_by_role("button", name="Select all shown").click()
    expect(edits.get_by_text("8 pictures are selected.")).to_be_visible()
    edits.get_by_label("Tag").fill("row")
    edits.get_by_role("button", name="Take it off").click()
    expect(page.get_by_label("Tag", exact=True).first).not_to_contain_text("row")
    edits.get_by_role("button", name="Select none").click()
    expect(edits).to_have_count(0)

    shots(page).nth(0).get_by_role("link").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(shots(page)).to_have_count(7)
    assert service.get(kept[0]["links"]["self"]).status_code == 404
    page.get_by_role("link", name="Trash").click()
    row = page.get_by_role("listitem").filter(has_text=kept[0]["id"])
    row.get_by_role("button", name="Restore").click()
    expect(page.get_by_text(f"The picture {kept[0]['id']} is back.")).to_be_visible()
    visit(page, "#/gallery", "Gallery")
    expect(shots(page)).to_have_count(8)


def test_more_are_loaded_as_they_are_scrolled_to_and_others_leave(page, service, model):
    empty(service)
    for seed in range(4):
        keep(service, seed=seed, num_images=60)
    visit(page, "#/gallery", "Gallery")
    expect(page.get_by_role("img", name=re.compile("^1: "))).to_be_visible()
    page.mouse.move(600, 600)
    last = page.get_by_role("img", name=re.compile("^240: "))
    for _ in range(20):
        page.mouse.wheel(0, 1500)
        page.wait_for_timeout(100)
        if last.count():
            break
    expect(last).to_be_visible()
    assert shots(page).count() < 200
    expect(page.get_by_role("img", name=re.compile("^1: "))).to_have_count(0)
    page.get_by_role("link", name="Gallery", exact=True).focus()
    page.evaluate("scrollTo(0, 0)")
    expect(page.get_by_role("img", name=re.compile("^1: "))).to_be_visible()
    oldest = service.get("/pictures?limit=100").json()["items"][99]
    visit(page, f"#/gallery?picture={oldest['id']}", "Gallery")
    page.reload()
    dialog = page.get_by_role("dialog")
    place = dialog.locator(".steps .note")
    expect(place).to_have_text(re.compile("^100 of"))
    page.keyboard.press("ArrowRight")
    expect(place).to_have_text(re.compile("^101 of"))
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_role("link", name=re.compile("^101: "))).to_be_focused()
    rest = service.get("/pictures", params={"after": oldest["id"], "limit": 100}).json()["items"]
    page.goto(f"/#/gallery?picture={rest[-1]['id']}")
    page.reload()
    expect(place).to_have_text(re.compile("^200 of"))


@pytest.mark.parametrize("opened", [False, True])
def test_nothing_is_wider_than_a_phone(page, kept, opened):
    page.set_viewport_size({"width": 360, "height": 780})
    picture = f"?picture={kept[0]['id']}" if opened else ""
    visit(page, f"#/gallery{picture}", "Gallery")
    expect(shots(page)).to_have_count(8)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    if opened:
        dialog = page.get_by_role("dialog")
        assert dialog.evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")
    assert_accessible(page)


def test_every_button_is_known_and_pressed(request):
    assert_all_are_pressed(request, {"gallery"})
