"""Noise, explained: what the page says agrees with the service's tables, images and samplers."""

import base64
import io
import re
import zipfile
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from app.registry.example import ARCHIVE
from tests.app.console.buttons import assert_all_are_pressed
from tests.app.console.visits import DIGITS, LONG, assert_accessible, upload_model, visit

HEADING = "Noise, explained"
NO_LESS = 0.005  # numbers have three digits
Pixels = NDArray[np.float64]  # in [-1, 1]


def test_a_service_without_models_says_so_and_one_without_classes_too(page, service, model_archive):
    visit(page, "#/explain", HEADING)
    expect(page.get_by_text("There is no model yet")).to_be_visible()
    assert_accessible(page)
    upload_model(service, "grey", model_archive())
    page.reload()
    guidance = step(page, "What guidance does")
    expect(guidance.get_by_text("grey has no classes")).to_be_visible()
    guidance.get_by_role("link", name="train one").click()
    expect(page.get_by_role("heading", level=1, name="Training")).to_be_visible()


@pytest.fixture(scope="module")
def grey(service: httpx.Client, model_archive: Any) -> str:
    """A greyscale model of 8 x 8 pixels with random weights."""
    upload_model(service, "grey", model_archive())
    return "grey"


@pytest.fixture(scope="module")
def emoji(service: httpx.Client) -> str:
    upload_model(service, "emoji", ARCHIVE.read_bytes())
    return "emoji"


@pytest.fixture(scope="module")
def distilled(service: httpx.Client, model_archive: Any) -> str:
    """The greyscale model, said to be a distilled one."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(model_archive())) as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            text = old.read(name).replace(b'"consistency": false', b'"consistency": true')
            new.writestr(name, text)
    upload_model(service, "distilled", content.getvalue())
    assert service.get("/models/distilled").json()["details"]["consistency"]
    return "distilled"


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """The model whose fixture a test's parameters name."""
    return str(request.getfixturevalue(request.param))


BOTH = pytest.mark.parametrize("model", ["grey", "emoji"], indirect=True)


def explain(page: Page, name: str, **settings: object) -> None:
    query = "".join(f"&{key}={value}" for key, value in settings.items())
    visit(page, f"#/explain?model={name}{query}", HEADING)


def step(page: Page, title: str) -> Locator:
    """A step of the page, in view, so that it begins."""
    found = page.get_by_role("region", name=title)
    found.scroll_into_view_if_needed()
    return found


def tables_of(service: httpx.Client, model: str) -> dict[str, Any]:
    schedule = dict(service.get(f"/models/{model}").json()["details"]["schedule"])
    name = schedule.pop("name")
    return dict(service.get(f"/schedules/{name}", params=schedule).raise_for_status().json())


def numbers_in(text: str | None) -> list[float]:
    """The numbers of a text, with either sign of minus."""
    plain = (text or "").replace("²", "").replace("−", "-").replace(",", "")
    return [
        float(found) for found in re.findall(r"(?<![\w.\u0302])-?\d+(?:\.\d+)?(?:e[+-]\d+)?", plain)
    ]


def formula(page: Page, says: str) -> Locator:
    """The numbers beside a formula."""
    return page.get_by_role("group", name=says, exact=True).locator(".numbers")


def numbers(page: Page, says: str) -> list[float]:
    return numbers_in(formula(page, says).text_content())


def cells(table: Locator, name: str | re.Pattern[str]) -> Locator:
    """The cells of the row with this header."""
    header = table.page.get_by_role("rowheader", name=name)
    return table.get_by_role("row").filter(has=header).get_by_role("cell")


def near(expected: float) -> Any:
    return pytest.approx(expected, rel=NO_LESS, abs=6e-4)


# Pictures -----------------------------------------------------------------------------------------


def pixels(file: str | None) -> Pixels:
    """A PNG, in base64 or as a data: address."""
    content = base64.b64decode((file or "").rpartition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB")) / 127.5 - 1


def drawn(page: Page, says: str) -> Pixels:
    canvas = page.locator("canvas").and_(page.get_by_role("img", name=says, exact=True))
    expect(canvas).to_be_visible(timeout=LONG)
    return pixels(canvas.evaluate("canvas => canvas.toDataURL()"))


def await_picture(page: Page) -> None:
    choice = page.get_by_role("region", name="Model and picture")
    expect(choice.get_by_role("status")).to_have_count(0, timeout=LONG)


def images(of: Locator) -> list[Pixels]:
    return [pixels(image.get_attribute("src")) for image in of.get_by_role("img").all()]


def rmse(one: Pixels, other: Pixels) -> float:
    return float(np.sqrt(np.mean((one - other) ** 2)))


def sampled(service: httpx.Client, **request: object) -> dict[str, Any]:
    headers = {"Accept": "application/json"}
    return dict(service.post("/sample", json=request, headers=headers).raise_for_status().json())


# 1. A picture becomes noise -----------------------------------------------------------------------


@BOTH
def test_the_numbers_are_those_of_the_models_own_schedule(page, service, model):
    tables = tables_of(service, model)
    explain(page, model)
    for t in (1, 240, 1000):
        page.get_by_label("Noise level t").fill(f"{t}")
        expect(page.get_by_role("img", name=f"The picture at t = {t}", exact=True)).to_be_visible()
        alpha, sigma = (tables[name][t] for name in ("alphas", "sigmas"))
        assert numbers(page, "The mixture") == [near(alpha), near(sigma)]
        *_, snr = numbers(page, "The signal to noise ratio")
        assert snr == near(tables["snr"][t])
        one, x0, other, eps, mixed = numbers(page, "The mixture in one pixel")
        assert (one, other) == (near(alpha), near(sigma))
        assert mixed == pytest.approx(alpha * x0 + sigma * eps, rel=0.01, abs=0.01)
    page.get_by_label("Noise level t").fill("0")
    expect(formula(page, "The signal to noise ratio")).to_contain_text("infinite")
    clean = drawn(page, "The picture without noise")
    assert np.array_equal(drawn(page, "The picture at t = 0"), clean)


def test_a_pixel_is_chosen_by_its_place_or_with_a_click(page, emoji):
    explain(page, emoji)
    clean = drawn(page, "The picture without noise")
    page.get_by_label("Pixel: column").fill("5")
    page.get_by_label("Pixel: row").fill("20")
    assert numbers(page, "The mixture in one pixel")[1] == near(clean[20, 5, 0])
    canvas = page.get_by_role("img", name="The picture at t = 300")
    size = canvas.bounding_box()
    canvas.click(position={"x": 10.5 / 32 * size["width"], "y": 15.5 / 32 * size["height"]})
    expect(page.get_by_label("Pixel: column")).to_have_value("10")
    expect(page.get_by_label("Pixel: row")).to_have_value("15")
    assert numbers(page, "The mixture in one pixel")[1] == near(clean[15, 10, 0])


@BOTH
def test_a_band_is_lost_where_its_noise_becomes_stronger_than_its_picture(page, service, model):
    tables = tables_of(service, model)
    explain(page, model)
    table = page.get_by_role("region", name="What is lost where").get_by_role("table")
    colour = drawn(page, "The picture without noise")
    names = ["fine detail", "edges and parts", "shapes"] + ["colours"] * (model == "emoji")
    expect(table.get_by_role("rowheader")).to_have_count(len(names))
    for name in names:
        power, bound, lost, share = cells(table, re.compile(name)).all_text_contents()
        assert float(bound) == pytest.approx(1 / float(power), rel=0.02)
        t = int(lost)
        assert tables["snr"][t] <= 1.02 / float(power)
        assert tables["snr"][t - 1] >= 0.98 / float(power)
        assert share.endswith("lost") == (t <= 300)
        assert int(share.partition("%")[0]) == pytest.approx(
            100 / (1 + 1 / (float(power) * tables["snr"][300])), abs=1
        )
    if model == "grey":  # the bands hold all the power around the mean (Parseval)
        count = {"fine detail": 64 - 25, "edges and parts": 25 - 9, "shapes": 9 - 1}
        of = {name: float(cells(table, re.compile(name)).first.text_content()) for name in names}
        total = sum(of[name] * count[name] for name in names)
        assert total == pytest.approx(64 * colour[..., 0].var(), rel=0.01)


# 2. The model's guess -----------------------------------------------------------------------------


@BOTH
def test_there_is_a_guess_for_every_level_with_its_error(page, service, model):
    explain(page, model)
    guesses = step(page, "The model's guess at every level")
    table = guesses.get_by_role("table")
    expect(table).to_be_visible(timeout=LONG)
    clean = drawn(page, "The picture without noise")
    guessed = images(cells(table, "x̂0"))
    assert len(guessed) == len(images(cells(table, "xt"))) == 8
    levels = [numbers_in(text)[-1] for text in cells(table, re.compile("^t$")).all_text_contents()]
    assert levels == sorted(set(levels))
    errors = [float(text) for text in cells(table, "error of the guess").all_text_contents()]
    assert errors == [near(rmse(guess, clean) ** 2) for guess in guessed]
    flat = float(cells(table, "error of one flat colour").first.text_content())
    assert flat == near(rmse(clean, clean.mean(axis=(0, 1))) ** 2)
    texts = cells(table, re.compile("error of no guess")).all_text_contents()
    no_guess = [numbers_in(text)[0] for text in texts]
    better = sum(error < min(flat, noise) for error, noise in zip(errors, no_guess, strict=True))
    said = f"all {better}" if better == 8 else f"{better} of 8"
    expect(guesses).to_contain_text(f"The model is better than both at {said} levels.")
    if model == "emoji":
        assert errors[0] < 0.01 * flat, "it sees the picture"
        assert errors == sorted(errors)


def test_the_picture_of_a_level_is_the_one_that_the_model_sees(page, grey):
    explain(page, grey)
    table = step(page, "The model's guess at every level").get_by_role("table")
    expect(table).to_be_visible(timeout=LONG)
    seen = images(cells(table, "xt"))
    buttons = table.get_by_role("button").all()
    for button, expected in zip(buttons, seen, strict=True):
        (t,) = numbers_in((button.text_content() or "").partition("= ")[2])
        button.click()
        expect(page.get_by_label("Noise level t")).to_have_value(f"{t:.0f}")
        x_t = drawn(page, f"The picture at t = {t:.0f}")
        assert np.abs(x_t - expected).max() < 1.5 / 127.5, "to one grey level"
    assert len(buttons) == 8


def test_a_level_between_two_rows_is_shown_at_the_nearest(page, emoji):
    explain(page, emoji)
    table = step(page, "The model's guess at every level").get_by_role("table")
    table.get_by_role("button").nth(1).click(timeout=LONG)
    shown = numbers_in(cells(table, re.compile("^t$")).nth(1).text_content())[-1]
    assert shown != round(shown)
    expect(page.get_by_label("Noise level t")).to_have_value(f"{round(shown)}")


# 3. Back again ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "count"), [("grey", 12), ("emoji", 12), ("distilled", 4)], indirect=["model"]
)
def test_each_step_back_is_the_step_of_the_sampler(page, service, model, count):
    tables = tables_of(service, model)
    sampler = sampler_of(service, model)
    request = {"model": model, "seed": 1, "sampler": sampler, "num_inference_steps": count}
    made = sampled(service, trajectory=True, **request)
    (path,) = made["trajectories"]
    explain(page, model)
    back = step(page, "Back again, step by step")
    slider = back.get_by_label("Step", exact=True)
    for i, expected in enumerate(path, 1):
        slider.fill(f"{i}", timeout=LONG)
        expect(back.get_by_text(f"{i} of {count}")).to_be_visible()
        assert np.array_equal(drawn(page, f"The guess at step {i}"), pixels(expected["x0_hat"]))
        if model != "emoji":  # its service shows x_t in another way
            x_t = drawn(page, f"x at step {i}")
            assert np.abs(x_t - pixels(expected["x_t"])).max() < 3.5 / 127.5, f"step {i}"
        if i < count and float(path[i]["t"]).is_integer():
            t = int(path[i]["t"])
            parts = numbers(page, "The step")
            assert parts == [near(tables["alphas"][t]), near(tables["sigmas"][t])]
        one, guess, other, eps, mixed = numbers(page, "The step in the middle pixel")[-5:]
        assert mixed == pytest.approx(one * guess + other * eps, rel=0.02, abs=0.01)
    assert numbers(page, "The step") == [1, 0]
    expect(back.get_by_text("This was the last step")).to_be_visible()
    assert np.array_equal(drawn(page, f"x after step {count}"), pixels(made["images"][0]))


def sampler_of(service: httpx.Client, model: str) -> str:
    """The sampler that the page takes: the one for distilled models, or the one with eta that can
    also be inverted."""
    is_distilled = service.get(f"/models/{model}").json()["details"]["consistency"]
    (name,) = (
        each["name"]
        for each in service.get("/samplers").json()["samplers"]
        if (each["for_distilled"] if is_distilled else each["takes_eta"] and each["takes_invert"])
    )
    return str(name)


# 4. Later steps mend an error ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "at", "eta"),
    [("grey", 3, 1), ("emoji", 2, 1), ("emoji", 6, 0), ("distilled", 2, None)],
    indirect=["model"],
)
def test_both_runs_are_equal_before_the_error_and_differ_at_it(page, model, at, eta):
    explain(page, model, at=at, **({} if eta is None else {"eta": eta}))
    mending = step(page, "Later steps mend an error")
    assert mending.get_by_label("η").count() == (eta is not None)
    table = mending.get_by_role("table")
    expect(table).to_be_visible(timeout=LONG)
    plain = images(cells(table, re.compile("x̂₀ undisturbed")))
    disturbed = images(cells(table, re.compile("x̂₀ disturbed")))
    pairs = list(zip(plain, disturbed, strict=True))
    assert len(pairs) == (4 if eta is None else 20)
    assert all(np.array_equal(one, other) for one, other in pairs[: at - 1])
    shown = [float(text) for text in cells(table, "difference").all_text_contents()]
    assert shown == [near(rmse(one, other)) for one, other in pairs]
    assert shown[at - 1] > 0.05
    largest, left = max(shown), shown[-1]
    largest_at, last = numbers(page, "The difference")[0], numbers(page, "The difference")[-1]
    assert (largest_at, last) == (near(largest), near(left))
    word = "Mended" if left <= 0.5 * largest else "Not mended"
    verdict = mending.get_by_text(re.compile("mended: at the end", re.IGNORECASE))
    expect(verdict).to_contain_text(re.compile(f"^{word}"))
    (share,) = numbers_in((verdict.text_content() or "").partition("%")[0])
    assert share == pytest.approx(100 * left / largest, abs=2)
    if eta == 0:
        assert word == "Not mended"
        expect(verdict).to_contain_text("Raise η")
    if (model, at, eta) == ("emoji", 2, 1):
        assert word == "Mended"


def test_the_error_is_as_large_as_asked(page, service, grey):
    explain(page, grey, share=1.5, at=4)
    mending = step(page, "Later steps mend an error")
    expect(mending.get_by_role("table")).to_be_visible(timeout=LONG)
    sampler = sampler_of(service, grey)
    request = {"model": grey, "seed": 1, "sampler": sampler, "num_inference_steps": 20, "eta": 1}
    (path,) = sampled(service, trajectory=True, **request)["trajectories"]
    sigma = tables_of(service, grey)["sigmas"][int(path[3]["t"])]
    share, other, product = numbers(page, "The error")
    assert (share, other, product) == (1.5, near(sigma), near(1.5 * sigma))
    mending.get_by_label("Size of the error").fill("0.5")
    expect(formula(page, "The error")).to_contain_text("= 0.5 ·")
    disturb = {"at": 3, "strength": 0.5 * sigma}
    (path,) = sampled(service, trajectory=True, disturb=disturb, **request)["trajectories"]
    disturbed = mending.get_by_role("img", name="disturbed, step 4", exact=True)
    expect(disturbed).to_have_attribute("src", f"data:image/png;base64,{path[3]['x0_hat']}")


# 5. What guidance does ----------------------------------------------------------------------------


def test_each_scale_of_guidance_makes_another_image(page, service, emoji):
    explain(page, emoji, seed=5)
    guidance = step(page, "What guidance does")
    guidance.get_by_label("Class").select_option("food")
    guidance.get_by_label("g of your own").fill("5.5")
    expect(guidance.get_by_text("g = 5.5 (yours)")).to_be_visible(timeout=LONG)
    expect(formula(page, "Guidance")).to_contain_text("+ 5.5 (")
    expect(guidance.locator("figcaption").nth(1)).to_have_text("g = 1d = 0", timeout=LONG)
    made = images(guidance)
    scales = [0, 1, 2, 4, 8, 5.5]
    for scale, image in zip(scales, made, strict=True):
        request = {"class_label": "food", "seed": 5, "guidance_scale": scale}
        (expected,) = sampled(service, model=emoji, **request)["images"]
        assert np.array_equal(image, pixels(expected))
    apart = [rmse(one, other) for i, one in enumerate(made) for other in made[:i]]
    assert min(apart) > 0
    captions = [numbers_in(text)[-1] for text in guidance.locator("figcaption").all_text_contents()]
    assert captions == [near(rmse(image, made[1])) for image in made]
    assert numbers(page, "The distance from the unguided picture")[-2] == near(captions[-1])


def test_a_model_without_classes_offers_one_that_can_be_guided(page, grey, emoji):
    explain(page, grey)
    guidance = step(page, "What guidance does")
    expect(guidance.get_by_text("grey has no classes")).to_be_visible()
    guidance.get_by_role("link", name=emoji).click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("emoji")
    expect(step(page, "What guidance does").get_by_label("Class")).to_be_visible()


# The picture, the link and the end ----------------------------------------------------------------


def test_another_picture_and_ones_own_go_the_same_way(page, emoji, picture):
    explain(page, emoji)
    made = drawn(page, "The picture without noise")
    page.get_by_role("button", name="Another picture").click()
    expect(page.get_by_label("Seed")).not_to_have_value("1")
    await_picture(page)
    assert rmse(drawn(page, "The picture without noise"), made) > 0
    page.get_by_text("Take a picture of your own").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a picture").click()
    file = {"name": "own.png", "mimeType": "image/png", "buffer": picture(64, 64)}
    chooser.value.set_files(file)
    expect(page.get_by_label("Picture", exact=True)).to_have_value("own")
    await_picture(page)
    own = drawn(page, "The picture without noise")
    assert own[:, -1, 0].mean() > 0.9, "the gradient's bright side"
    assert own[:, 0, 0].mean() < -0.9, "and its dark one"
    guesses = step(page, "The model's guess at every level").get_by_role("table")
    expect(guesses).to_be_visible(timeout=LONG)
    first = images(cells(guesses, "x̂0"))[0]
    assert rmse(first, own) < 0.05


def test_a_picture_of_the_models_dataset_is_one_of_its_class(page, service):
    service.put("/datasets/learned", content=DIGITS.read_bytes()).raise_for_status()
    body = {"dataset": "learned", "steps": 20, "batch_size": 8, "model_name": "pupil"}
    job = service.post("/train-jobs", json=body).raise_for_status().headers["location"]
    while not (state := service.get(job, params={"wait": 30}).json())["done"]:
        pass
    assert state["status"] == "succeeded", state
    explain(page, "pupil", seed=2)
    page.get_by_label("Class of the picture").select_option("7")
    page.get_by_label("Picture", exact=True).select_option("dataset")
    listed = service.get("/datasets/learned/images", params={"class": "7", "limit": 3}).json()
    file = service.get(f"/datasets/learned/images/{listed['items'][2]['id']}/file").content
    expected = pixels(base64.b64encode(file).decode())
    await_picture(page)
    assert np.abs(drawn(page, "The picture without noise") - expected).max() < 1.5 / 127.5


def test_a_link_restores_every_setting(page, emoji):
    explain(page, emoji)
    settings = {
        "Class of the picture": "food",
        "Seed": "7",
        "Noise level t": "420",
        "Pixel: column": "3",
        "Pixel: row": "30",
        "Error before step": "9",
        "Size of the error, in units of σ there": "0.4",
        "η: the share of fresh noise at every step": "0.25",
        "g of your own": "6.5",
        "Step": "4",
    }
    back = step(page, "Back again, step by step")
    expect(back.get_by_label("Step", exact=True)).to_be_visible(timeout=LONG)
    step(page, "Later steps mend an error")
    for label, value in settings.items():
        control = page.get_by_label(label, exact=True)
        if label.startswith("Class"):
            control.select_option(value, timeout=LONG)
        else:
            control.fill(value, timeout=LONG)
    expect(page).to_have_url(re.compile("step=4"))
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    step(page, "Back again, step by step")
    for label, value in settings.items():
        expect(page.get_by_label(label, exact=True)).to_have_value(value, timeout=LONG)
    expect(page.get_by_label("Model", exact=True)).to_have_value("emoji")


def test_settings_that_no_page_can_have_are_passed_over(page, grey):
    explain(page, grey, t="abc", seed="-4", step="99", at="1e9", class_label="nobody")
    expect(page.get_by_label("Noise level t")).to_have_value("300")
    expect(page.get_by_label("Seed")).to_have_value("1")
    back = step(page, "Back again, step by step")
    expect(back.get_by_text("12 of 12")).to_be_visible(timeout=LONG)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_the_walk_ends_at_ones_own_images(page, emoji):
    visit(page, "", re.compile("own images"))
    page.get_by_role("link", name="Noise, explained").click()
    expect(page.get_by_role("heading", level=1, name=HEADING)).to_be_visible()
    page.get_by_role("link", name="Upload your own images").click()
    expect(page.get_by_role("heading", level=1, name="Datasets")).to_be_visible()


@pytest.mark.parametrize("width", [360, 1280])
def test_the_whole_page_is_accessible_and_not_wider_than_the_window(page, emoji, width):
    page.set_viewport_size({"width": width, "height": 780})
    explain(page, emoji)
    for title in ("The model's guess at every level", "Later steps mend an error"):
        expect(step(page, title).get_by_role("table")).to_be_visible(timeout=LONG)
    captions = step(page, "What guidance does").locator("figcaption")
    expect(captions.nth(1)).to_have_text("g = 1d = 0", timeout=LONG)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert_accessible(page)


def test_every_button_is_known_and_pressed(request):
    assert_all_are_pressed(request, {"explain"})
