"""The model that an empty service begins with."""

import io
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import expect

from app.main import create_app
from app.registry.example import ARCHIVE, NAME
from app.settings import Settings
from store.locations import Locations

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "digits.zip"


def models(address: str) -> list[str]:
    answer = httpx.get(f"{address}/models", timeout=60).raise_for_status()
    return [model["name"] for model in answer.json()["items"]]


def test_an_empty_service_makes_images_in_colour_without_training(serve, tmp_path):
    settings = Settings(locations=Locations(tmp_path))
    with serve(create_app(settings)) as address:
        model = httpx.get(f"{address}/models/{NAME}", timeout=60).raise_for_status().json()
        assert model["license"] == "apache-2.0"
        assert sorted(model["details"]["class_names"]) == [
            *("activities", "animals", "flags", "food", "objects"),
            *("people", "smileys", "symbols", "travel"),
        ]
        request = {"model": NAME, "class_label": "smileys", "num_images": 4, "seed": 3}
        answer = httpx.post(
            f"{address}/sample", json=request, headers={"Accept": "image/png"}, timeout=60
        ).raise_for_status()
        picture = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"), float)
        red, green, blue = picture[picture.min(axis=2) < 230].mean(axis=0)  # but the white ones
        assert red > green > blue + 20  # smileys are yellow
    assert ARCHIVE.stat().st_size < 12e6


def test_the_start_page_shows_new_pictures_until_there_are_images_of_ones_own(
    serve, tmp_path, browser
):
    with serve(create_app(Settings(locations=Locations(tmp_path)))) as address:
        page = browser.new_page(base_url=address)
        page.goto("/")
        picture = page.get_by_role("img", name="Nine new emoji")
        expect(picture).to_have_js_property("naturalWidth", 96)
        page.get_by_role("link", name="Make your own").click()
        expect(page.get_by_label("Model")).to_have_value(NAME)
        httpx.put(f"{address}/datasets/own", content=DIGITS.read_bytes(), timeout=60)
        page.goto("/")
        expect(page.get_by_text("is uploaded")).to_be_visible()
        expect(picture).to_have_count(0)
        page.close()


def test_it_comes_to_empty_services_only(serve, tmp_path):
    settings = Settings(locations=Locations(tmp_path))
    with serve(create_app(replace(settings, example_model=False))) as address:
        assert models(address) == []
    with serve(create_app(settings)) as address:
        assert models(address) == [NAME]
    with serve(create_app(settings)) as address:  # once
        assert models(address) == [NAME]
        httpx.delete(f"{address}/models/{NAME}").raise_for_status()
        httpx.put(
            f"{address}/datasets/own", content=DIGITS.read_bytes(), timeout=60
        ).raise_for_status()
    with serve(create_app(settings)) as address:
        assert models(address) == []
