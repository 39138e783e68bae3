"""Keys, dropped files, links to every state, and pages that stay open: on all pages."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.app.console.buttons import assert_all_are_pressed
from tests.app.console.visits import DIGITS, LONG, assert_accessible, upload_model, visit

SMALL = {"block_out_channels": [32, 32]}
HIDE = """isHidden => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
NOTE = """window.told = [];
const permitted = () => "granted";
class Noted { constructor(text) { window.told.push(text); } close() {} }
Object.defineProperty(Noted, "permission", { get: permitted });
Noted.requestPermission = async () => "granted";
window.Notification = Noted;"""


def _drop(page: Page, selector: str, name: str, media_type: str, content: bytes) -> None:
    """Drop a file on an element, as from the desktop."""
    transfer = page.evaluate_handle(
        """([name, type, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
            return transfer;
        }""",
        [name, media_type, [*content]],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event(selector, event, {"dataTransfer": transfer})


def _train(service, dataset: str, steps: int, **changes) -> dict:
    body = {"dataset": dataset, "steps": steps, "batch_size": 8, "net": SMALL, **changes}
    return service.post("/train-jobs", json=body).raise_for_status().json()


# Keys ---------------------------------------------------------------------------------------------


def test_keys_lead_to_each_section(page):
    visit(page, "", "Train a diffusion model on your own images")
    for key, heading in (
        ("n", "What noise does"),
        ("d", "Datasets"),
        ("t", "Training"),
        ("m", "Models"),
        ("s", "New images"),
        ("c", "Compare settings"),
        ("y", "Gallery"),
        ("g", "Train a diffusion model on your own images"),
    ):
        page.keyboard.press("g")
        page.keyboard.press(key)
        expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()


def test_the_keys_are_listed_and_can_be_turned_off(page):
    visit(page, "#/noise", "What noise does")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog.get_by_text("goes to Datasets")).to_be_visible()
    assert_accessible(page)
    dialog.get_by_label("Use these keys").uncheck()
    dialog.get_by_role("button", name="Close").click()
    page.keyboard.press("g")
    page.keyboard.press("d")
    page.get_by_role("button", name="Keyboard shortcuts").click()
    expect(page.get_by_role("heading", level=1, name="What noise does")).to_be_visible()
    dialog.get_by_label("Use these keys").check()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("d")
    expect(page.get_by_role("heading", level=1, name="Datasets")).to_be_visible()


def test_letters_typed_into_a_field_are_no_shortcuts(page):
    visit(page, "#/datasets", "Datasets")
    field = page.get_by_label("Or the URL of an archive")
    field.press_sequentially("gn?")
    expect(field).to_have_value("gn?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("heading", level=1, name="Datasets")).to_be_visible()


# Files --------------------------------------------------------------------------------------------


def test_an_archive_dropped_on_the_start_page_is_a_dataset(page):
    visit(page, "", "Train a diffusion model on your own images")
    _drop(page, "main", "dropped.zip", "application/zip", DIGITS.read_bytes())
    expect(page.get_by_role("heading", level=1, name="Datasets")).to_be_visible()
    expect(page.get_by_label("Name of the dataset")).to_have_value("dropped")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", level=1, name="dropped")).to_be_visible()


def test_a_picture_dropped_anywhere_on_the_noise_page_is_dissolved(page, picture):
    visit(page, "#/noise", "What noise does")
    first = page.locator("img[data-method=closed_form]")
    before = first.get_attribute("src")
    _drop(page, "h1", "wide.png", "image/png", picture(60, 20))
    expect(first).not_to_have_attribute("src", str(before))
    expect(first).to_have_js_property("naturalHeight", 20)


def test_a_picture_is_pasted_into_the_noise_page(page, picture):
    visit(page, "#/noise", "What noise does")
    first = page.locator("img[data-method=closed_form]")
    expect(first).to_have_js_property("naturalHeight", 64)
    page.evaluate(
        """bytes => {
            const clipboardData = new DataTransfer();
            const type = "image/png";
            clipboardData.items.add(new File([new Uint8Array(bytes)], "pasted.png", { type }));
            const options = { clipboardData, bubbles: true, cancelable: true };
            document.body.dispatchEvent(new ClipboardEvent("paste", options));
        }""",
        [*picture(60, 20)],
    )
    expect(first).to_have_js_property("naturalHeight", 20)


def test_a_page_without_a_place_for_files_says_where_they_go(page, picture):
    visit(page, "#/training", "Training")
    _drop(page, "h1", "wide.png", "image/png", picture())
    expect(page.get_by_role("alert")).to_contain_text("takes no files")
    expect(page.get_by_role("heading", level=1, name="Training")).to_be_visible()


# Links --------------------------------------------------------------------------------------------


def test_the_address_of_the_noise_page_holds_its_settings(page):
    visit(page, "#/noise", "What noise does")
    page.get_by_label(re.compile("t, of 1000 steps")).fill("700")
    page.get_by_role("combobox", name="Schedule").select_option("cosine")
    page.get_by_label("Seed of the noise").fill("8")
    expect(page).to_have_url(re.compile(r"#/noise\?t=700&schedule=cosine&seed=8$"))
    page.reload()
    expect(page.locator("img[data-method=closed_form]")).to_have_attribute("data-t", "700")
    expect(page.get_by_role("combobox", name="Schedule")).to_have_value("cosine")
    expect(page.get_by_label("Seed of the noise")).to_have_value("8")
    page.get_by_role("link", name="Noise", exact=True).click()
    expect(page.locator("img[data-method=closed_form]")).to_have_attribute("data-t", "150")


@pytest.mark.parametrize("settings", ["t=-5&side=7", "t=1e9&side=x", "t=many"])
def test_an_address_with_nonsense_shows_a_page_that_works(page, settings):
    visit(page, f"#/noise?{settings}", "What noise does")
    expect(page.locator("img[data-method=closed_form]")).to_have_js_property("naturalHeight", 64)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_the_address_of_a_dataset_holds_the_class(page, service):
    service.put("/datasets/linked", content=DIGITS.read_bytes()).raise_for_status()
    visit(page, "#/datasets/linked", "linked")
    page.get_by_role("group", name="Classes").get_by_role("button", name=re.compile("^7 ")).click()
    expect(page).to_have_url(re.compile("class=7"))
    page.reload()
    chip = page.get_by_role("group", name="Classes").get_by_role("button", pressed=True)
    expect(chip).to_contain_text("7 179")


def test_the_address_of_the_training_form_holds_all_that_was_typed(page, service):
    service.put("/datasets/aaa", content=DIGITS.read_bytes()).raise_for_status()
    service.put("/datasets/typed", content=DIGITS.read_bytes()).raise_for_status()
    visit(page, "#/training", "Training")
    page.get_by_label("Dataset", exact=True).select_option("typed")
    page.get_by_label("Minutes").fill("7")
    page.get_by_text("Everything else, and why").click()
    page.get_by_label("Batch size").fill("24")
    page.get_by_label("Channels of the net").fill("16, 16")
    expect(page).to_have_url(re.compile("block_out_channels"))
    page.reload()
    expect(page.get_by_label("Dataset", exact=True)).to_have_value("typed")
    expect(page.get_by_label("Minutes")).to_have_value("7")
    expect(page.get_by_label("Batch size")).to_have_value("24")
    expect(page.get_by_label("Channels of the net")).to_have_value("16, 16")


def test_a_page_that_arrives_after_it_was_left_is_not_shown(page):
    late = []
    page.route("**/pages/trash.js", lambda route: late.append(route))
    visit(page, "#/gallery", "Gallery")
    with page.expect_request("**/pages/trash.js"):
        page.goto("/#/trash")
    visit(page, "#/gallery", "Gallery")
    with page.expect_response("**/pages/trash.js") as arrived:
        for route in late:
            route.continue_()
    arrived.value.finished()
    page.wait_for_timeout(300)  # milliseconds, in which the module is run
    expect(page.get_by_role("heading", level=1, name="Gallery")).to_be_visible()


# What ends meanwhile ------------------------------------------------------------------------------


def test_samples_appear_while_a_training_runs_and_its_end_is_said_everywhere(page, service):
    service.put("/datasets/live", content=DIGITS.read_bytes()).raise_for_status()
    job = _train(service, "live", 4000, checkpoint_every=40)
    page.add_init_script(NOTE)
    visit(page, f"#/training/{job['id']}", job["model_name"])
    page.get_by_label("Notify me when a job has ended").check()
    samples = page.get_by_role("img", name=re.compile("Samples after"))
    expect(samples).to_be_visible(timeout=LONG)
    first = samples.get_attribute("src")
    expect(samples).not_to_have_attribute("src", str(first), timeout=LONG)
    expect(page.get_by_label("Progress").get_by_text("running", exact=True)).to_be_visible()
    expect(page).to_have_title(re.compile(r"^\d+% · "))
    visit(page, "#/models", "Models")
    page.evaluate(HIDE, True)
    service.post(f"/train-jobs/{job['id']}/cancel").raise_for_status()
    ended = f"The training of {job['model_name']} is cancelled."
    expect(page).to_have_title(re.compile(re.escape(ended)), timeout=LONG)
    assert page.evaluate("window.told") == [ended]
    page.evaluate(HIDE, False)
    expect(page).to_have_title("Models – Diffusion")
    page.get_by_role("link", name="Show it").click()
    expect(page.get_by_role("heading", level=1, name=job["model_name"])).to_be_visible()


def test_a_page_that_was_open_for_a_night_is_right_in_the_morning(browser, run_service, tmp_path):
    settings = {"DIFFUSION_TRAIN_NICENESS": "0"}
    with run_service(tmp_path, {"workers": "up: 2 alive"}, **settings) as evening:
        port = evening.base_url.port
        evening.put("/datasets/night", content=DIGITS.read_bytes()).raise_for_status()
        job = _train(evening, "night", 240, checkpoint_every=40)
        night = browser.new_context(base_url=str(evening.base_url)).new_page()
        night.clock.install()
        night.goto(f"/#/training/{job['id']}")
        expect(night.get_by_role("img", name=re.compile("Samples after"))).to_be_visible(
            timeout=LONG
        )
        night.clock.pause_at(night.evaluate("Date.now()") + 1000)  # the lid is closed
    with run_service(tmp_path, {}, DIFFUSION_PORT=str(port), **settings) as morning:
        address = f"/train-jobs/{job['id']}"
        while not (now := morning.get(address, params={"wait": 30}).json())["done"]:
            pass
        assert now["status"] == "succeeded"
        steps = morning.get(f"{address}/samples").json()["steps"]
        night.clock.fast_forward("08:00:00")
        night.clock.resume()
        status = night.get_by_label("Progress").get_by_text("succeeded", exact=True)
        expect(status).to_be_visible(timeout=LONG)
        expect(night.get_by_role("img", name=f"Samples after {max(steps)} steps")).to_be_visible()
        expect(night.get_by_text("The service does not answer")).to_be_hidden()
        night.context.close()


def test_an_update_of_the_service_is_offered(page, service, model_archive):
    upload_model(service, "updated", model_archive())
    visit(page, "#/models", "Models")
    newer = re.sub(r"console/[0-9a-f]{16}/", "console/0123456789abcdef/", service.get("/").text)
    page.context.route(f"{service.base_url}/", lambda route: route.fulfill(body=newer))
    page.context.set_offline(True)
    expect(page.get_by_text("The service does not answer")).to_be_visible()
    page.context.set_offline(False)
    again = page.get_by_role("button", name="Load the page again")
    expect(again).to_be_visible(timeout=LONG)
    page.context.unroute(f"{service.base_url}/")
    page.evaluate("window.here = true")
    again.click()
    expect(page.get_by_role("heading", level=1, name="Models")).to_be_visible()
    page.wait_for_function("!window.here")


def test_every_button_is_known_and_pressed(request):
    assert_all_are_pressed(request, set())
