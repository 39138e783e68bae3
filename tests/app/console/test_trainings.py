"""Trainings side by side, and the queue, in a real browser on a real service."""

import csv
import io
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.app.console.buttons import assert_all_are_pressed
from tests.app.console.visits import DIGITS, LONG, assert_accessible, visit

NAMES = ("narrow", "wide")
SMALL = {
    "dataset": "rows",
    "preset": "ddpm",
    "steps": 60,
    "batch_size": 16,
    "checkpoint_every": 20,
}
NET = {"norm_num_groups": 4, "attention_head_dim": 4}
CHANNELS = {"narrow": [8, 8], "wide": [16, 16]}


@pytest.fixture(scope="module")
def jobs(service: httpx.Client) -> dict[str, str]:
    """The ids of two trainings that are done, by the names of their models."""
    service.put("/datasets/rows", content=DIGITS.read_bytes()).raise_for_status()
    made = {}
    for name in NAMES:
        net = {**NET, "block_out_channels": CHANNELS[name]}
        request = {**SMALL, "model_name": name, "net": net}
        job = service.post("/train-jobs", json=request).raise_for_status().json()
        done = service.get(job["links"]["self"], params={"wait": 60}, timeout=90).json()
        assert done["status"] == "succeeded", done
        made[name] = job["id"]
    return made


def compared(page: Page, jobs: dict[str, str], **settings: str) -> None:
    """Open the comparison of all these jobs by its address."""
    query = "&".join(f"{name}={value}" for name, value in settings.items())
    visit(page, f"#/runs?jobs={','.join(jobs.values())}&{query}", "Compare trainings")
    expect(loss(page)).to_be_visible()


def shown(value: float, digits: int) -> str:
    """Return a number as the console writes it."""
    return f"{float(f'{value:.{digits}g}'):g}"


def loss(page: Page):
    return page.get_by_role("img", name=re.compile("The training loss"))


def reading(page: Page, section: str):
    return page.get_by_role("region", name=section, exact=True).locator(".reading")


def table(page: Page):
    return page.get_by_role("region", name="Trainings", exact=True)


def test_ticked_trainings_are_seen_over_each_other(page, service, jobs):
    visit(page, "#/training", "Training")
    page.get_by_role("checkbox", name="Compare wide").check()
    button = page.get_by_role("button", name=re.compile("Compare"))
    expect(button).to_have_count(0)  # one cannot be compared
    for name in NAMES:
        page.get_by_role("checkbox", name=f"Compare {name}").check()
    page.get_by_role("button", name="Untick all").click()
    expect(page.get_by_role("checkbox", name="Compare wide")).not_to_be_checked()
    for name in NAMES:
        page.get_by_role("checkbox", name=f"Compare {name}").check()
    assert_accessible(page)
    page.get_by_role("button", name="Compare 2 trainings").click()

    expect(page.get_by_role("heading", level=1, name="Compare trainings")).to_be_visible()
    said = str(loss(page).get_attribute("aria-label"))
    for name in NAMES:
        metrics = service.get(f"/train-jobs/{jobs[name]}/metrics").json()
        assert re.search(rf"[\d.]+ for {name}", said)
        assert len(metrics["steps"]) > 1
        score = min(line["score"] for line in metrics["evaluations"])
        row = table(page).get_by_role("row", name=re.compile(name))
        expect(row).to_contain_text(f"{shown(score, 3)} at step")
        expect(row).to_contain_text("succeeded")
    steps = {line["step"] for line in metrics["steps"]}
    assert loss(page).get_attribute("data-points") == str(len(steps))
    page.reload()  # in light again
    expect(loss(page)).to_be_visible()
    _each_curve_is_drawn_in_its_colour(page)
    assert_accessible(page)


def _each_curve_is_drawn_in_its_colour(page: Page) -> None:
    picture = page.get_by_role("region", name="Loss", exact=True).locator("canvas").screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    for colour in ((0x43, 0x38, 0xCA), (0xC2, 0x57, 0x0C)):
        near = np.abs(pixels - colour).sum(axis=-1) < 12
        assert near.sum() > 30, colour


def test_curves_are_drawn_against_steps_images_and_minutes(page, service, jobs):
    compared(page, jobs)
    metrics = {name: service.get(f"/train-jobs/{jobs[name]}/metrics").json() for name in NAMES}
    last = {name: metrics[name]["steps"][-1] for name in NAMES}
    assert last["wide"]["images_seen"] == 16 * last["wide"]["step"]
    axes = {
        "steps": last["wide"]["step"],
        "images seen": last["wide"]["images_seen"],
        "minutes of training": max(line["seconds"] for line in last.values()) / 60,
    }
    for axis, end in axes.items():
        page.get_by_label("Against", exact=True).select_option(label=axis)
        chart = page.get_by_role("img", name=re.compile(f"training loss .* against {axis}"))
        chart.press("ArrowLeft")
        expect(reading(page, "Loss")).to_contain_text(f"{axis} ")
        while True:  # to the last point
            before = reading(page, "Loss").inner_text()
            chart.press("ArrowRight")
            if reading(page, "Loss").inner_text() == before:
                break
        (found,) = re.findall(rf"{axis} ([\d.,]+)", before)
        assert float(found.replace(",", "")) == pytest.approx(end, rel=2e-3, abs=1e-3)
        assert re.search(r"narrow\s+[\d.]+", before)
        assert re.search(r"wide\s+[\d.]+", before)
    assert "x=minutes" in page.url
    page.get_by_label("Scale of errors").select_option(label="linear")
    page.get_by_label("Smoothing of the loss").fill("0")
    expect(page.get_by_text("0.00", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_label("Against", exact=True)).to_have_value("minutes")
    expect(page.get_by_label("Scale of errors")).to_have_value("linear")
    expect(page.get_by_label("Smoothing of the loss")).to_have_value("0")


def test_without_smoothing_the_reading_is_the_logged_loss(page, service, jobs):
    compared(page, jobs, smooth="0")
    metrics = service.get(f"/train-jobs/{jobs['narrow']}/metrics").json()
    loss(page).press("ArrowRight")
    first = metrics["steps"][0]
    expect(reading(page, "Loss")).to_contain_text(f"steps {first['step']}")
    expect(reading(page, "Loss")).to_contain_text(f"narrow {shown(first['loss'], 4)}")


def test_what_differs_is_listed_and_what_is_equal_only_if_asked_for(page, jobs):
    compared(page, jobs)
    section = page.get_by_role("region", name="What differs")
    channels = section.get_by_role("row", name=re.compile("Channels of the net"))
    expect(channels).to_contain_text("8, 8")
    expect(channels).to_contain_text("16, 16")
    expect(section.get_by_role("row", name=re.compile("Batch size"))).to_have_count(0)
    section.get_by_role("checkbox", name=re.compile("Show all settings")).check()
    expect(section.get_by_role("row", name=re.compile("^Batch size"))).to_contain_text("16")
    expect(channels).to_have_class("differs")
    page.reload()
    expect(section.get_by_role("row", name=re.compile("^Batch size"))).to_be_visible()
    assert_accessible(page)


def test_tags_and_notes_are_kept_and_lead_back_to_their_training(page, service, jobs):
    compared(page, jobs)
    row = table(page).get_by_role("row", name=re.compile("wide"))
    row.get_by_role("button", name="Edit tags and notes of wide").click()
    form = page.get_by_role("form", name="Tags and notes of wide")
    form.get_by_label("Tags").fill("x" * 41)
    form.get_by_role("button", name="Save").click()
    expect(form.get_by_role("alert")).to_contain_text("40")
    assert_accessible(page)
    form.get_by_label("Tags").fill("baseline, two words")
    form.get_by_label("Notes").fill("twice the channels")
    form.get_by_role("button", name="Save").click()
    expect(row.get_by_text("twice the channels")).to_be_visible()
    page.reload()
    expect(row.get_by_text("twice the channels")).to_be_visible()
    row.get_by_role("button", name="Edit tags and notes of wide").click()
    expect(form.get_by_label("Tags")).to_have_value("baseline, two words")
    form.get_by_role("button", name="Cancel").click()
    assert service.get(f"/train-jobs/{jobs['wide']}").json()["tags"] == ["baseline", "two words"]
    row.get_by_role("link", name="two words").click()
    expect(page.get_by_role("checkbox", name="Compare wide")).to_be_visible()
    expect(page.get_by_role("checkbox", name="Compare narrow")).to_have_count(0)
    page.get_by_role("link", name="Show all").click()
    expect(page.get_by_role("checkbox", name="Compare narrow")).to_be_visible()


def test_samples_and_noise_levels_are_of_the_same_step(page, service, jobs):
    compared(page, jobs)
    section = page.get_by_role("region", name="Samples")
    for name in NAMES:
        expect(section.get_by_role("img", name=f"Samples of {name} after 60 steps")).to_be_visible()
    slider = page.get_by_label("Samples and noise levels at step")
    slider.fill("0")
    for name in NAMES:
        steps = service.get(f"/train-jobs/{jobs[name]}/samples").json()["steps"]
        first = min(steps)
        image = section.get_by_role("img", name=f"Samples of {name} after {first} steps")
        expect(image).to_be_visible()
        expect(image).to_have_js_property("complete", True)
        assert image.evaluate("image => image.naturalWidth") > 0
    levels = page.get_by_role("region", name="Held-out error by noise level")
    expect(levels.get_by_text(f"narrow: step {first}", exact=False)).to_be_visible()
    page.reload()
    expect(
        section.get_by_role("img", name=f"Samples of narrow after {first} steps")
    ).to_be_visible()
    # At a step that a training has not, its last one before is shown, and named.
    compared(page, jobs, step="59")
    expect(section.get_by_text("its last one before").first).to_be_visible()
    compared(page, jobs, step="1")
    before = section.get_by_text("no samples by then")
    expect(before).to_have_count(sum(1 not in range(first, 2) for _ in NAMES))


def test_the_curves_are_exported_as_numbers_and_as_a_picture(page, service, jobs):
    compared(page, jobs)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    content = Path(download.value.path()).read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert [*rows[0]] == ["job", "model", "step", "images", "seconds", "metric", "value"]
    for name, job in jobs.items():
        metrics = service.get(f"/train-jobs/{job}/metrics").json()
        found = [row for row in rows if row["job"] == job and row["metric"] == "loss"]
        assert {row["model"] for row in found} == {name}
        keys = ("step", "images_seen", "seconds", "loss")
        expected = [[line[key] for key in keys] for line in metrics["steps"]]
        columns = ("step", "images", "seconds", "value")
        assert [[float(row[column]) for column in columns] for row in found] == expected
        errors = [r for r in rows if r["job"] == job and r["metric"] == "held_out_error"]
        assert [float(r["value"]) for r in errors] == [e["score"] for e in metrics["evaluations"]]
    assert any(row["metric"].startswith("held_out_error/t=") for row in rows)

    with page.expect_download() as download:
        page.get_by_role("button", name="Export as PNG").click()
    picture = Image.open(download.value.path()).convert("RGB")
    heights = page.locator(".chart canvas").evaluate_all("all => all.map(each => each.height)")
    assert len(heights) == 3
    assert picture.height > heights[0] + heights[2]  # two stand side by side
    pixels = np.asarray(picture).astype(int)
    assert (pixels[0, 0] == 255).all()  # white where the page is light
    for colour in ((0x43, 0x38, 0xCA), (0xC2, 0x57, 0x0C)):
        assert (np.abs(pixels - colour).sum(axis=-1) < 12).sum() > 100


def test_a_training_can_be_left_out_and_others_chosen(page, jobs):
    compared(page, jobs)
    table(page).get_by_role("button", name="Leave out narrow").click()
    expect(table(page).get_by_role("row")).to_have_count(2)
    expect(loss(page)).to_have_attribute("aria-label", re.compile("training loss of wide against"))
    page.get_by_role("link", name="Choose others").click()
    expect(page.get_by_role("checkbox", name="Compare wide")).to_be_checked()
    expect(page.get_by_role("checkbox", name="Compare narrow")).not_to_be_checked()


def test_a_training_that_is_gone_is_named_and_the_others_are_shown(page, jobs):
    visit(page, f"#/runs?jobs=job_0,{jobs['wide']}", "Compare trainings")
    expect(page.get_by_role("alert")).to_contain_text("job_0")
    expect(loss(page)).to_be_visible()
    visit(page, "#/runs", "Compare trainings")
    expect(page.get_by_text("Tick trainings on the page")).to_be_visible()


def test_the_page_fits_a_phone_and_follows_a_job_that_runs(page, service, jobs):
    page.set_viewport_size({"width": 360, "height": 740})
    net = {**NET, "block_out_channels": [8, 8]}
    request = {**SMALL, "steps": 100_000, "model_name": "moving", "net": net}
    job = service.post("/train-jobs", json=request).raise_for_status().json()
    compared(page, {**jobs, "moving": job["id"]})
    expect(loss(page)).to_have_attribute("aria-label", re.compile("for moving"), timeout=LONG)
    points = str(loss(page).get_attribute("data-points"))
    expect(loss(page)).not_to_have_attribute("data-points", points, timeout=LONG)
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) <= 360
    assert_accessible(page)
    service.post(job["links"]["cancel"]).raise_for_status()
    visit(page, "#/training", "Training")
    assert page.evaluate(wide) <= 360


def test_the_queue_shows_what_runs_and_the_places_of_what_waits(page, service, jobs):
    net = {**NET, "block_out_channels": [8, 8]}
    budget = {key: value for key, value in SMALL.items() if key != "steps"}
    started = [
        service.post(
            "/train-jobs", json={**budget, "minutes": minutes, "model_name": n, "net": net}
        )
        for n, minutes in (("first", 30), ("second", 10), ("third", 5))
    ]
    links = [answer.raise_for_status().json()["links"] for answer in started]
    visit(page, "#/training", "Training")
    queue = page.get_by_role("region", name="Queue")
    items = queue.get_by_role("listitem")
    expect(items.nth(0)).to_contain_text("now", timeout=LONG)
    expect(items.nth(0)).to_contain_text("first")
    expect(items.nth(0)).to_contain_text(re.compile(r"about (29|30) min left"), timeout=LONG)
    expect(items.nth(1)).to_contain_text("1st")
    expect(items.nth(1)).to_contain_text("second")
    expect(items.nth(1)).to_contain_text(re.compile(r"begins in about (29|30) min"))
    expect(items.nth(1)).to_contain_text("takes about 10 min")
    expect(items.nth(2)).to_contain_text("2nd")
    expect(items.nth(2)).to_contain_text(re.compile(r"begins in about (39|40) min"))
    assert_accessible(page)
    service.post(links[0]["cancel"]).raise_for_status()
    expect(items.nth(0)).to_contain_text("second", timeout=LONG)
    expect(items.nth(1)).to_contain_text("1st")
    for link in links[1:]:
        service.post(link["cancel"]).raise_for_status()
    expect(queue).to_have_count(0, timeout=LONG)


def test_every_button_is_known_and_pressed(request):
    assert_all_are_pressed(request, {"runs"})
