"""Signing in at the console, in a real browser, on a service that needs a key."""

import pytest
from playwright.sync_api import Browser, expect

from app.main import create_app
from app.settings import Settings
from store.access.keys import create_key
from store.database import open_database
from store.locations import Locations
from tests.app.console.visits import assert_accessible


@pytest.fixture
def keyed(serve, tmp_path):
    """The address of a service that needs a key, and alice's."""
    settings = Settings(locations=Locations(tmp_path), example_model=False)
    database = open_database(settings.locations.database_url)
    _, key = create_key(database, "alice", ["read", "sample", "train", "datasets"])
    database.close()
    with serve(create_app(settings)) as url:
        yield url, key


def test_the_console_asks_for_a_key_and_forgets_it(browser: Browser, keyed):
    url, key = keyed
    context = browser.new_context(base_url=url)
    page = context.new_page()
    page.goto("/#/datasets")
    sign_in = page.get_by_role("heading", level=1, name="Sign in")
    expect(sign_in).to_be_visible()
    assert_accessible(page)
    page.get_by_label("Key", exact=True).fill("dk_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("the key is not known")
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1, name="Datasets")).to_be_visible()
    assert "diffusion_key" not in page.evaluate("document.cookie"), "scripts cannot read it"
    page.reload()
    expect(page.get_by_role("heading", level=1, name="Datasets")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(sign_in).to_be_visible()
    assert context.cookies() == []
    context.close()
