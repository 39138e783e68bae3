"""What the tests of several pages do."""

import re
from pathlib import Path

import httpx
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "digits.zip"
SECONDS = 1000  # milliseconds, as Playwright counts
LONG = 90 * SECONDS
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def visit(page: Page, hash_: str, heading: str | re.Pattern[str]) -> None:
    page.goto(f"/{hash_}")
    expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()


def assert_accessible(page: Page) -> None:
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        found = Axe().run(page, options=WCAG)
        assert found.violations_count == 0, f"{page.url}, {theme}\n{found.generate_report()}"


def upload_model(service: httpx.Client, name: str, content: bytes) -> None:
    service.put(f"/models/{name}", content=content).raise_for_status()
