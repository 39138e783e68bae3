"""Pictures of the console's pages, light and dark, wide and narrow: `make screenshots`.

A new service in demo/screenshots gets the emoji and the digits, and trains on the digits for three
minutes; then Chromium takes a picture of each page. New images are those of the model of emoji that
a service begins with. The pictures go to docs/images/console/.
"""

import io
import re
import shutil
import sys
import time
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from demo import ARCHIVE as DIGITS
from demo import HERE, service

STATE = Path("demo/screenshots")
OUT = Path("docs/images/console")
CHROMIUM = Path("/usr/bin/chromium")
SIZES = {"wide": (1280, 860), "narrow": (390, 844)}
THEMES = ("light", "dark")
EMOJI = HERE / "emoji" / "emoji.zip"
MODEL, CLASS = "emoji", "smileys"
PATIENCE = 60_000  # milliseconds
NEXT_IMAGE = """() => {
    const next = [...document.images].find((image) => image.checkVisibility() && !image.complete);
    next?.scrollIntoView();
    return Boolean(next);
}"""


def main() -> None:
    expect.set_options(timeout=PATIENCE)
    if not CHROMIUM.exists():
        sys.exit(f"{CHROMIUM} is missing; apt-get install chromium")
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(parents=True)
    OUT.mkdir(parents=True, exist_ok=True)
    with service(STATE) as url, sync_playwright() as playwright:
        job = prepare(url)
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        for theme in THEMES:
            for name, size in SIZES.items():
                look(browser, url, job, theme, name, size)
        browser.close()


def prepare(url: str) -> str:
    """Upload datasets, train and evaluate a model; return the id of its training."""
    with httpx.Client(base_url=url, timeout=120) as client:
        for name, archive in {"emoji": EMOJI, "digits": DIGITS}.items():
            client.put(f"/datasets/{name}", content=archive.read_bytes()).raise_for_status()
        request = {
            "dataset": "digits",
            "minutes": 3,
            "model_name": "my-digits",
            "checkpoint_every": 100,
        }
        job = client.post("/train-jobs", json=request).raise_for_status().json()
        while not job["done"]:
            job = client.get(f"/train-jobs/{job['id']}", params={"wait": 30}).json()
        measured = client.post("/evaluations", json={"model": "my-digits", "num_images": 200})
        while not client.get(measured.headers["location"], params={"wait": 30}).json()["done"]:
            pass
        return str(job["id"])


def look(
    browser: Browser, url: str, job: str, theme: str, size_name: str, size: tuple[int, int]
) -> None:
    width, height = size
    context = browser.new_context(
        base_url=url, viewport={"width": width, "height": height}, color_scheme=theme
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    pages = {
        "start": ("", nothing),
        "noise": ("#/noise", noise),
        "dataset": ("#/datasets/emoji", nothing),
        "training": ("#/training?dataset=emoji", unfold),
        "job": (f"#/training/{job}", nothing),
        "models": ("#/models", show_some),
        "sample": (f"#/sample?model={MODEL}", sample),
    }
    for name, (address, prepare_page) in pages.items():
        page.goto("about:blank")
        page.goto(f"/{address}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        prepare_page(page)
        page.wait_for_timeout(1500)
        load_images(page)
        content = page.screenshot(full_page=True, animations="disabled")
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        picture.save(OUT / f"{name}-{theme}-{size_name}.webp", quality=85, method=6)
        print(OUT / f"{name}-{theme}-{size_name}.webp", picture.size)
    context.close()


def load_images(page: Page) -> None:
    """Scroll to each image once, since those below are loaded when they come into view."""
    deadline = time.monotonic() + PATIENCE / 1000
    # wait_for_function would evaluate text, which the page's policy forbids.
    while page.evaluate(NEXT_IMAGE):
        page.wait_for_timeout(20)
        if time.monotonic() > deadline:
            sys.exit(f"{page.url}: an image is not loaded")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)


def nothing(page: Page) -> None:
    pass


def noise(page: Page) -> None:
    page.get_by_label(re.compile("t, of 1000 steps")).fill("180")
    expect(page.locator("img[data-method=step_by_step]")).to_have_attribute("data-t", "180")


def unfold(page: Page) -> None:
    page.get_by_text("Everything else, and why").click()


def show_some(page: Page) -> None:
    page.get_by_role("button", name="Show some images").click()
    expect(page.get_by_role("button", name="Show some images")).to_have_count(0)


def sample(page: Page) -> None:
    page.get_by_label("Class", exact=True).select_option(CLASS)
    page.get_by_label("How many").fill("16")
    page.get_by_text("Sampler, steps, guidance, seed").click()
    page.get_by_label("Seed").fill("3")
    page.get_by_role("button", name="Make images").click()
    made = page.get_by_role("region", name=f"{MODEL}: {CLASS}", exact=True)
    expect(made.get_by_role("button", name="Make again")).to_be_visible()
    made.get_by_text("Disturb a step, and see it corrected").click()
    made.get_by_role("button", name="Disturb").click()
    disturbed = page.get_by_role("region", name=re.compile("Disturbed before"))
    expect(disturbed.get_by_role("table")).to_be_visible()


if __name__ == "__main__":
    main()
