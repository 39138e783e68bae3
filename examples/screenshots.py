"""Pictures of the console's pages, light and dark, wide and narrow: `make screenshots`.

A new service in demo/screenshots gets the emoji, and pieces of two photographs, of which it learns
twice for some minutes; then Chromium takes a picture of each page. Other new images are those of
the model of emoji that a service begins with. The pictures go to docs/images/console/.
"""

import io
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sklearn.datasets import load_sample_image

from demo import HERE, service

STATE = Path("demo/screenshots")
OUT = Path("docs/images/console")
CHROMIUM = Path("/usr/bin/chromium")
SIZES = {"wide": (1280, 860), "narrow": (390, 844)}
THEMES = ("light", "dark")
EMOJI = HERE / "emoji" / "emoji.zip"
MODEL, CLASS = "emoji", "smileys"
COMPARED = (
    f"model={MODEL}&seed=3&x=guidance_scale&xs=1,2,4&y=class_label&ys=smileys,animals,food,flags"
)
KEPT = ("smileys", "animals", "food")  # classes of the pictures in the gallery
PHOTOGRAPHS = {"temple": "china.jpg", "flower": "flower.jpg"}
PIECES = 600  # of each
SIDE = 32  # pixels of a piece, after it is made smaller
MINUTES = {"photographs": 10, "photographs-short": 2}  # by the name of a model
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
        addresses = prepare(url)
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        for theme in THEMES:
            for name, size in SIZES.items():
                look(browser, url, addresses, theme, name, size)
        browser.close()


def prepare(url: str) -> dict[str, str]:
    """Upload datasets, train and evaluate models, keep pictures; return the addresses of pages."""
    with httpx.Client(base_url=url, timeout=120) as client:
        client.put("/datasets/emoji", content=EMOJI.read_bytes()).raise_for_status()
        client.put("/datasets/photographs", content=pieces()).raise_for_status()
        jobs = {name: train(client, name, minutes) for name, minutes in MINUTES.items()}
        name, job = next(iter(jobs.items()))
        measured = client.post("/evaluations", json={"model": name, "num_images": 200})
        while not client.get(measured.headers["location"], params={"wait": 30}).json()["done"]:
            pass
        notes = {"tags": ["baseline"], "notes": "Two photographs, cut into pieces."}
        client.patch(f"/train-jobs/{job}", json=notes).raise_for_status()
        pictures = [keep(client, label, seed) for seed, label in enumerate(KEPT)]
    return {
        "job": f"#/training/{job}",
        "runs": f"#/runs?jobs={','.join(jobs.values())}",
        "model": f"#/models/{name}",
        "picture": f"#/gallery?picture={pictures[0]}",
    }


def pieces() -> bytes:
    """Cut squares of all sizes out of the photographs, and return a zip with a folder for each."""
    generator = np.random.default_rng(0)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, file in PHOTOGRAPHS.items():
            photograph = Image.fromarray(load_sample_image(file))
            for i in range(PIECES):
                side = int(generator.integers(2 * SIDE, photograph.height // 2))
                left = int(generator.integers(0, photograph.width - side))
                top = int(generator.integers(0, photograph.height - side))
                box = (left, top, left + side, top + side)
                piece = photograph.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box)
                piece.save(image := io.BytesIO(), "png")
                archive.writestr(f"{name}/{i:03}.png", image.getvalue())
    return content.getvalue()


def train(client: httpx.Client, name: str, minutes: float) -> str:
    """Train on the photographs; return the id of the job."""
    request = {
        "dataset": "photographs",
        "minutes": minutes,
        "model_name": name,
        "checkpoint_every": 100,
    }
    job = client.post("/train-jobs", json=request).raise_for_status().json()
    while not job["done"]:
        job = client.get(f"/train-jobs/{job['id']}", params={"wait": 30}).json()
    return str(job["id"])


def keep(client: httpx.Client, label: str, seed: int) -> str:
    """Make pictures of a class and keep them, the first with a star and a tag; return its id."""
    request = {"model": MODEL, "class_label": label, "num_images": 16, "seed": seed}
    made = client.post("/sample", json=request, headers={"Accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(made.raise_for_status().content)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        files = [("image", (name, archive.read(name))) for name in names]
    first = client.post("/pictures", files=files).raise_for_status().json()["items"][0]["id"]
    client.patch(f"/pictures/{first}", json={"starred": True, "tags": ["favourites"]})
    return str(first)


def look(
    browser: Browser,
    url: str,
    addresses: Mapping[str, str],
    theme: str,
    size_name: str,
    size: tuple[int, int],
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
        "explain": (f"#/explain?model={MODEL}&class_label={CLASS}&seed=4", explain),
        "dataset": ("#/datasets/photographs", nothing),
        "training": ("#/training?dataset=emoji", unfold),
        "job": (addresses["job"], nothing),
        "runs": (addresses["runs"], nothing),
        "models": ("#/models", show_some),
        "model": (addresses["model"], try_it),
        "sample": (f"#/sample?model={MODEL}", sample),
        "compare": (f"#/compare?{COMPARED}", compare),
        "gallery": ("#/gallery", nothing),
        "picture": (addresses["picture"], nothing),
    }
    for name, (address, prepare_page) in pages.items():
        page.goto("about:blank")
        page.goto(f"/{address}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        prepare_page(page)
        page.wait_for_timeout(1500)
        load_images(page)
        # A dialog is as large as the window, and the gallery shows what is near it.
        is_of_window = page.locator("dialog[open], main .shots").count() > 0
        content = page.screenshot(full_page=not is_of_window, animations="disabled")
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
    flower = Image.fromarray(load_sample_image(PHOTOGRAPHS["flower"]))
    flower.crop((100, 0, 527, 427)).resize((128, 128)).save(content := io.BytesIO(), "png")
    file = {"name": "flower.png", "mimeType": "image/png", "buffer": content.getvalue()}
    page.locator("main input[type=file]").first.set_input_files([file])
    page.get_by_label(re.compile("t, of 1000 steps")).fill("180")
    expect(page.locator("img[data-method=step_by_step]")).to_have_attribute("data-t", "180")


def explain(page: Page) -> None:
    steps = page.locator("section.step")
    expect(steps).to_have_count(6)
    for step in steps.all():  # each asks for its pictures when it is seen
        step.scroll_into_view_if_needed()
        page.wait_for_timeout(300)
    expect(page.get_by_text(re.compile("^The model (makes|looks)"))).to_have_count(0)


def unfold(page: Page) -> None:
    page.get_by_text("Everything else, and why").click()


def show_some(page: Page) -> None:
    button = page.get_by_role("button", name=f"Show some images by {MODEL}")
    button.click()
    expect(button).to_have_count(0)


def try_it(page: Page) -> None:
    page.get_by_role("button", name="Make images").click()
    expect(page.get_by_role("button", name="Make others")).to_be_visible()


def compare(page: Page) -> None:
    page.get_by_role("button", name="Make the grid").click()
    expect(page.get_by_role("button", name="Download the picture")).to_be_visible()


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
