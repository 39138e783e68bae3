"""The pace of the console in Chromium, on a service with much in it.

A service gets a dataset of 50,000 images, 50 models, 200 trainings and 5,000 pictures of the
gallery. Then a browser that has never been there opens each page, scrolls down, and opens it
again. A page is there when its content is in the document and each image in the window is drawn;
the time counts from the request for the page.

The images, a training and the pictures are made by the service; the other models and trainings are
copies of the records of one. `--quick` measures one round on a tenth of it.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import sqlalchemy as sa
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from benchmarks.common import free_port, save, server, table
from store.database import open_database
from store.jobs.record import Job
from store.locations import Locations
from store.models import ModelRecord

CHROMIUM = Path("/usr/bin/chromium")
WINDOW = (1280, 900)
SIZE = 16  # pixels
PICTURES_AT_ONCE = 64
SCROLLED, TURN = 100, 400  # turns of the wheel, and pixels of each: 13,000 a second
FIRST_VIEW_SECONDS, PAGE_SECONDS, TASK_MILLISECONDS, SCRIPT_KILOBYTES = (
    0.5,
    1.0,
    100,
    300,
)  # targets

# Resolves to the milliseconds since the page was asked for.
IS_THERE = """([selector, count]) => new Promise((resolve) => {
    const isInWindow = (image) => {
        const { top, bottom, width } = image.getBoundingClientRect();
        return width > 0 && bottom > 0 && top < innerHeight;
    };
    const look = () => {
        const found = document.querySelectorAll(selector).length >= count;
        const images = [...document.images].filter(isInWindow);
        if (found && images.every((image) => image.complete)) resolve(performance.now());
        else requestAnimationFrame(look);
    };
    look();
})"""
COUNT_LONG_TASKS = """window.longTasks = [];
new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) longTasks.push(duration);
}).observe({ type: "longtask", buffered: true });"""


@dataclass(frozen=True)
class Amounts:
    images: int = 50_000
    models: int = 50
    jobs: int = 200
    pictures: int = 5_000


@dataclass
class Found:
    """What was measured: seconds by page, of a first visit and of another, the longest task by page
    in milliseconds, bytes of each script as it is sent, and the origins of all requests."""

    first: dict[str, list[float]] = field(default_factory=dict)
    again: dict[str, list[float]] = field(default_factory=dict)
    longest_task: dict[str, float] = field(default_factory=dict)
    scripts: dict[str, int] = field(default_factory=dict)
    first_scripts: int = 0
    origins: set[str] = field(default_factory=set)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    amounts = Amounts(5_000, 5, 20, 500) if options.quick else Amounts()
    if not CHROMIUM.exists():
        sys.exit(f"{CHROMIUM} is missing; apt-get install chromium")
    found = Found()
    with filled_service(amounts) as (url, pages), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        for turn in range(1 if options.quick else options.rounds):
            print(f"round {turn}", file=sys.stderr)
            for name, wanted in pages.items():
                with visitor(browser, url, found) as page:
                    found.first.setdefault(name, []).append(open_page(page, *wanted))
                    note_scripts(page, found, is_first=name == "start")
                    longest = scroll(page)
                    found.longest_task[name] = max(longest, found.longest_task.get(name, 0.0))
                    page.goto("about:blank")
                    found.again.setdefault(name, []).append(open_page(page, *wanted))
        browser.close()
    report(found, url, amounts, is_saved=not options.quick)


def report(found: Found, url: str, amounts: Amounts, is_saved: bool) -> None:
    first, again = (
        {name: statistics.median(times) for name, times in visits.items()}
        for visits in (found.first, found.again)
    )
    rows = [
        [name, f"{first[name]:.2f}", f"{again[name]:.2f}", f"{found.longest_task[name]:.0f}"]
        for name in first
    ]
    print(table(("page", "first visit, s", "another, s", "longest task, ms"), rows))
    others = sorted(found.origins - {url})
    kilobytes = sum(found.scripts.values()) / 1000
    print(f"scripts: {kilobytes:.0f} kB in all, {found.first_scripts / 1000:.0f} kB for the start")
    print(f"requests to other hosts: {', '.join(others) or 'none'}")
    missed = {
        f"first view in {FIRST_VIEW_SECONDS} s": first["start"] > FIRST_VIEW_SECONDS,
        **{f"{name} in {PAGE_SECONDS} s": first[name] > PAGE_SECONDS for name in first},
        **{
            f"no task over {TASK_MILLISECONDS} ms, {name}": longest > TASK_MILLISECONDS
            for name, longest in found.longest_task.items()
        },
        f"scripts under {SCRIPT_KILOBYTES} kB": kilobytes > SCRIPT_KILOBYTES,
        "no other host": bool(others),
    }
    print(f"missed: {'; '.join(name for name, is_so in missed.items() if is_so) or 'nothing'}")
    if is_saved:
        tasks = {name: round(longest) for name, longest in found.longest_task.items()}
        sizes = {"script_bytes": sum(found.scripts.values()), "at_first": found.first_scripts}
        times = {"first_visit_s": found.first, "another_s": found.again, "longest_task_ms": tasks}
        save("console", {"amounts": vars(amounts), **times, **sizes, "other_hosts": others})


# The browser -------------------------------------------------------------------------------------


@contextmanager
def visitor(browser: Browser, url: str, found: Found) -> Iterator[Page]:
    """Open a window of somebody who has never been here."""
    width, height = WINDOW
    context: BrowserContext = browser.new_context(
        base_url=url, viewport={"width": width, "height": height}
    )
    page = context.new_page()
    page.add_init_script(COUNT_LONG_TASKS)
    page.on("request", lambda request: found.origins.add(origin(request.url)))
    yield page
    context.close()


def origin(address: str) -> str:
    return "/".join(address.removeprefix("blob:").split("/")[:3])


def open_page(page: Page, address: str, selector: str, count: int) -> float:
    """Return the seconds until a page is there."""
    page.goto(f"/{address}", wait_until="commit")
    return float(page.evaluate(IS_THERE, [selector, count])) / 1000


def note_scripts(page: Page, found: Found, is_first: bool) -> None:
    entries = page.evaluate(
        """performance.getEntriesByType("resource")
            .filter(({ name }) => new URL(name).pathname.endsWith(".js"))
            .map(({ name, encodedBodySize }) => [name, encodedBodySize])"""
    )
    found.scripts.update(dict(entries))
    if is_first:
        found.first_scripts = sum(dict(entries).values())


def scroll(page: Page) -> float:
    """Scroll down and return the longest task in milliseconds, 0 where none took over 50."""
    page.wait_for_timeout(300)
    page.evaluate("longTasks.length = 0")
    page.mouse.move(WINDOW[0] / 2, WINDOW[1] / 2)
    for _ in range(SCROLLED):
        page.mouse.wheel(0, TURN)
        page.wait_for_timeout(30)
    page.wait_for_timeout(300)
    return float(page.evaluate("Math.max(0, ...longTasks)"))


# The service -------------------------------------------------------------------------------------


@contextmanager
def filled_service(amounts: Amounts) -> Iterator[tuple[str, dict[str, tuple[str, str, int]]]]:
    """Run a service; yield its URL, and by page its address, a selector and how many to expect."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data_dir:
        variables = {"DIFFUSION_DATA_DIR": data_dir, "DIFFUSION_PORT": str(port)}
        with server([sys.executable, "-m", "app.up"], port, "/readyz", **variables) as running:
            client = httpx.Client(base_url=running.base, timeout=600)
            print("uploads the dataset", file=sys.stderr)
            answer = client.put("/datasets/many", content=archive(amounts.images))
            answer.raise_for_status()
            client.put("/datasets/few", content=archive(200)).raise_for_status()
            job = train(client)
            copies = copy_records(data_dir, job, amounts)
            print("keeps pictures", file=sys.stderr)
            keep_pictures(client, amounts.pictures)
            yield running.base, pages_of(job, copies, amounts)


def pages_of(job: str, copies: list[str], amounts: Amounts) -> dict[str, tuple[str, str, int]]:
    rows, some = min(50, amounts.jobs), min(8, amounts.jobs)
    jobs = ",".join([job, *copies[: some - 1]])
    return {
        "start": ("#/", "main h1, main li.card, main ol > li", 2),
        "noise": ("#/noise", "main img[data-method]", 2),
        "noise, explained": ("#/explain", "main section.step", 4),
        "datasets": ("#/datasets", "main li.card", 2),
        "a dataset": ("#/datasets/many", "main .picks img", 40),
        "training": ("#/training", "main li.row", rows),
        "a training": (f"#/training/{job}", "main .chart canvas", 1),
        "trainings side by side": (f"#/runs?jobs={jobs}", "main .runs tbody tr", some),
        "models": ("#/models", "main li.card", amounts.models),
        "a model": ("#/models/small", "main .model-page h2", 4),
        "sample": ("#/sample", "main form button.primary", 1),
        "compare": ("#/compare", "main form button.primary", 1),
        "gallery": ("#/gallery", "main .shots img", 40),
        "trash": ("#/trash", "main .empty", 1),
    }


def archive(count: int) -> bytes:
    """Return a zip of `count` images of two classes, each a gradient of its own."""
    generator = np.random.default_rng(0)
    content = io.BytesIO()
    ramp = np.linspace(0, 1, SIZE)
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as file:
        for i, (slope, offset) in enumerate(generator.random((count, 2))):
            across = ramp[:, None] * slope + ramp[None] * offset
            levels = np.stack([across, across[::-1], across[:, ::-1]], axis=-1) * 127
            image = io.BytesIO()
            Image.fromarray(levels.astype(np.uint8)).save(image, "png", compress_level=1)
            file.writestr(f"{'even' if i % 2 == 0 else 'odd'}/{i:05}.png", image.getvalue())
    return content.getvalue()


def train(client: httpx.Client) -> str:
    """Train a small model; return the id of the job."""
    net = {"block_out_channels": [32, 32]}
    request = {"dataset": "few", "minutes": 0.2, "model_name": "small", "net": net}
    job = client.post("/train-jobs", json=request).raise_for_status().json()
    while not job["done"]:
        job = client.get(f"/train-jobs/{job['id']}", params={"wait": 30}).json()
    if job["status"] != "succeeded":
        sys.exit(f"the training has {job['status']}: {job['error']}")
    return str(job["id"])


def copy_records(data_dir: str, job: str, amounts: Amounts) -> list[str]:
    """Copy the records of the training and of its model; return the ids of the new trainings."""
    database = open_database(Locations(Path(data_dir)).database_url)
    with database.session() as session:
        row = session.execute(sa.select(Job.__table__).where(Job.id == job)).one()._mapping
        ids = [f"{job[:-4]}{i:04x}" for i in range(1, amounts.jobs)]
        copies = [{**row, "id": new, "model_name": f"copy-{i}"} for i, new in enumerate(ids)]
        session.execute(sa.insert(Job), copies)
        chosen = sa.select(ModelRecord.__table__).where(ModelRecord.name == "small")
        model = session.execute(chosen).one()._mapping
        count = session.scalar(sa.select(sa.func.count()).select_from(ModelRecord)) or 0
        session.execute(
            sa.insert(ModelRecord),
            [{**model, "name": f"copy-{i}"} for i in range(amounts.models - count)],
        )
    database.close()
    return ids


def keep_pictures(client: httpx.Client, count: int) -> None:
    for seed, first in enumerate(range(0, count, PICTURES_AT_ONCE)):
        request = {
            "model": "small",
            "num_images": min(PICTURES_AT_ONCE, count - first),
            "num_inference_steps": 2,
            "seed": seed,
        }
        zipped = client.post("/sample", json=request, headers={"Accept": "application/zip"})
        with zipfile.ZipFile(io.BytesIO(zipped.raise_for_status().content)) as file:
            images = [name for name in file.namelist() if name.endswith(".png")]
            files = [("image", (name, file.read(name))) for name in images]
        while (answer := client.post("/pictures", files=files)).status_code == 429:
            time.sleep(float(answer.headers.get("Retry-After", 1)))
        answer.raise_for_status()


if __name__ == "__main__":
    main()
