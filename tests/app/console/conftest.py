"""A page of a fresh visitor, in a real browser, on a real service."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.app.console.buttons import WATCH, note_button
from tests.app.console.visits import SECONDS


@pytest.fixture
def page(browser: Browser, service: httpx.Client) -> Iterator[Page]:
    """A page of a fresh visitor. At the end: no request has left the host, and nothing was said in
    the browser's console."""
    base = str(service.base_url).rstrip("/")
    context = browser.new_context(base_url=base, viewport={"width": 1280, "height": 900})
    context.expose_function("noteButton", note_button)
    context.add_init_script(WATCH)
    page = context.new_page()
    page.set_default_timeout(20 * SECONDS)
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert asked
    elsewhere = [url for url in asked if not url.startswith((f"{base}/", "blob:", "data:"))]
    assert elsewhere == []
    assert [text for text in said if not _is_refusal(text)] == []


def _is_refusal(text: str) -> bool:
    """The browser's own line for an answer of 4xx or for a network that a test has cut."""
    return text.startswith("Failed to load resource") and (
        "status of 4" in text or "ERR_INTERNET_DISCONNECTED" in text
    )
