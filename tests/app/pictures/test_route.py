"""/pictures on a running service: what was sampled is kept, found, shown, changed and deleted."""

import base64
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app.main import create_app
from app.pictures.files import MAX_PICTURES
from app.settings import Settings
from models.images.files import encode_image
from models.images.recipe import carried
from models.sampling.grid import spacings_of
from store.locations import Locations
from store.upkeep.keeping import Keeping

REQUEST = {"model": "tones", "seed": 3, "num_inference_steps": 2, "num_images": 3}
PLAIN = np.zeros((8, 8, 1), np.uint8)
KEPT, MAX_PIXELS = 6, 1000  # by the service of these tests


@pytest.fixture(scope="module")
def tones(model_archive: Callable[..., bytes]) -> bytes:
    return model_archive(image_size=(16, 8), class_names=("dark", "light"))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def service(serve, data_dir) -> Iterator[httpx.Client]:
    """A service whose gallery is small."""
    app = create_app(
        Settings(
            locations=Locations(data_dir),
            example_model=False,
            keeping=Keeping(keep_pictures=KEPT),
            max_upload_bytes=100_000,
            max_pixels=MAX_PIXELS,
        )
    )
    with serve(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


@pytest.fixture
def client(service, tones) -> httpx.Client:
    """A client of a service with a model and an empty gallery."""
    found = service.get("/models/tones")
    if found.is_error or found.json()["details"]["image_size"] != [16, 8]:
        service.delete("/models/tones")
        service.put("/models/tones", content=tones).raise_for_status()
    if there := ids(service, limit=100):
        service.delete("/pictures", params={"id": there}).raise_for_status()
    for entry in service.get("/trash?limit=100").json()["items"]:
        service.delete(entry["links"]["remove"]).raise_for_status()
    return service


def sampled(client: httpx.Client, **body: object) -> list[bytes]:
    answer = client.post("/sample", json=REQUEST | body, headers={"Accept": "application/json"})
    return [base64.b64decode(image) for image in answer.raise_for_status().json()["images"]]


def keep(client: httpx.Client, *files: bytes) -> list[dict]:
    answer = client.post("/pictures", files=[("image", file) for file in files])
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["items"]


def ids(client: httpx.Client, **query: object) -> list[str]:
    items = client.get("/pictures", params=query).raise_for_status().json()["items"]
    return [item["id"] for item in items]


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_batch_is_kept_in_one_request_and_only_once(client):
    files = sampled(client, class_label="light")
    answer = client.post("/pictures", files=[("image", file) for file in files])
    assert answer.status_code == 201
    assert (answer.json()["num_new"], answer.json()["num_removed"]) == (3, 0)
    items = answer.json()["items"]
    assert [item["class_name"] for item in items] == ["light"] * 3
    assert (items[0]["model"], items[0]["seed"], items[0]["width"], items[0]["height"]) == (
        *("tones", 3),
        *(8, 16),
    )
    again = client.post("/pictures", files=[("image", file) for file in files])
    assert (again.status_code, again.json()["num_new"]) == (200, 0)
    assert ids(client) == [item["id"] for item in items]
    for item, file in zip(items, files, strict=True):
        shown = client.get(item["links"]["file"])
        assert (shown.content, shown.headers["content-type"]) == (file, "image/png")
        assert client.post("/sample/again", content=shown.content).content == file


def test_thumbnails_come_with_the_list_where_they_are_wanted(client):
    items = keep(client, *sampled(client))
    listed = client.get("/pictures?embed=2").json()["items"]
    assert [item["id"] for item in listed] == [item["id"] for item in items]
    for shown, item in zip(listed, items, strict=True):
        address = item["links"]["thumbnail"]
        if shown is listed[2]:
            assert shown["links"]["thumbnail"] == address
        else:
            start, _, content = shown["links"]["thumbnail"].partition(",")
            assert start == "data:image/png;base64"
            assert base64.b64decode(content) == client.get(address).content
    assert client.get("/pictures?embed=-1").status_code == 422


def test_a_damaged_picture_keeps_its_link_and_the_others_are_shown(client, data_dir):
    items = keep(client, *sampled(client))
    (data_dir / "artifacts" / "pictures" / items[1]["id"]).write_bytes(b"other")
    first, damaged, last = (
        item["links"]["thumbnail"] for item in client.get("/pictures?embed=3").json()["items"]
    )
    assert (first[:5], last[:5]) == ("data:", "data:")
    assert client.get(damaged).status_code == 500


def test_a_file_and_a_zip_are_kept_too(client):
    (image,) = sampled(client, num_images=1)
    answer = client.post("/pictures", content=image)
    assert answer.headers["location"] == answer.json()["items"][0]["links"]["self"]
    archive = client.post("/sample", json=REQUEST, headers={"Accept": "application/zip"}).content
    items = client.post("/pictures", content=archive).raise_for_status().json()["items"]
    assert len(items) == 3
    for media_type in ("image/webp", "image/jpeg"):
        grid = client.post("/sample", json=REQUEST, headers={"Accept": media_type}).content
        (item,) = keep(client, grid)
        assert (item["media_type"], item["width"]) == (media_type, 16)
        settings = client.get(item["links"]["self"]).json()["settings"]
        assert (settings["image"], settings["request"]["num_images"]) == (None, 3)
        assert client.get(item["links"]["file"]).headers["content-type"] == media_type


def test_thumbnails_have_sharp_pixels_and_copies_are_kept_for_good(client):
    file, *_ = sampled(client)
    (item,) = keep(client, file)
    small = client.get(item["links"]["thumbnail"])
    assert pixels(small.content).shape == (128, 64)
    shown = pixels(small.content)
    assert (shown[::8, ::8] == pixels(file)).all()
    assert (shown[::8, ::8] == shown[7::8, 7::8]).all()
    for name in ("thumbnail", "file"):
        first = client.get(item["links"][name])
        assert "immutable" in first.headers["cache-control"]
        etag = {"If-None-Match": first.headers["etag"]}
        current = client.get(item["links"][name], headers=etag)
        assert (current.status_code, current.content) == (304, b"")
    assert (
        'filename="tones-3-0.png"'
        in client.get(item["links"]["file"]).headers["content-disposition"]
    )


def test_settings_are_a_request_that_makes_the_picture_again(client):
    files = sampled(client, class_label=["dark", "light", 1], guidance_scale=2.0, eta=0.0)
    item = keep(client, *files)[1]
    settings = client.get(item["links"]["self"]).json()["settings"]
    used = {key: settings["request"][key] for key in ("sampler", "seed", "guidance_scale")}
    assert used == {"sampler": item["sampler"], "seed": 3, "guidance_scale": 2.0}
    assert (settings["image"], settings["request"]["class_label"]) == (1, "light")
    assert {"spacing", "eta", "precision"}.isdisjoint(settings["request"])
    assert (settings["not_in_file"], settings["warning"]) == ([], None)
    remade = client.post(
        "/sample", json=settings["request"], headers={"Accept": "application/json"}
    )
    assert (pixels(base64.b64decode(remade.json()["images"][1])) == pixels(files[1])).all()
    assert client.post("/pictures/recipe", content=files[1]).json() == settings


def test_settings_have_the_guidance_where_it_is_not_the_models_own(client, model_archive):
    archive = model_archive((16, 16), ("dark", "light"), guidance_scale=2.0)
    assert client.put("/models/guided", content=archive).status_code in (200, 201)
    for asked, shown in (({}, None), ({"guidance_scale": 2}, None), ({"guidance_scale": 1}, 1.0)):
        file, *_ = sampled(client, model="guided", class_label="dark", **asked)
        settings = client.post("/pictures/recipe", content=file).json()
        assert settings["request"].get("guidance_scale") == shown
        assert settings["recipe"]["request"]["guidance_scale"] == (shown or 2.0)


def test_what_is_not_in_the_file_is_said(client):
    start = base64.b64encode(encode_image(PLAIN, "png")).decode()
    other = spacings_of("linear")[-1]
    file, _ = sampled(client, num_images=2, init_image=start, spacing=other, seed_to=5)
    settings = client.post("/pictures/recipe", content=file).json()
    assert settings["not_in_file"] == ["init_image"]
    assert settings["request"]["spacing"] == other
    assert settings["request"]["seed_to"] == 5
    (walk,) = client.post(
        "/sample",
        json={**REQUEST, "num_images": 1, "trajectory": True},
        headers={"Accept": "application/json"},
    ).json()["trajectories"]
    step = client.post("/pictures/recipe", content=base64.b64decode(walk[1]["x0_hat"])).json()
    assert (step["step"], step["view"]) == (1, "x0_hat")


def test_a_model_that_is_gone_or_another_is_said(client, model_archive):
    (file,) = sampled(client, num_images=1, class_label="dark")
    (item,) = keep(client, file)
    client.delete("/models/tones").raise_for_status()
    details = client.get(item["links"]["self"]).json()
    assert details["class_name"] == "dark"
    assert details["settings"]["warning"] == "there is no model 'tones' here"
    assert details["settings"]["request"]["class_label"] == 0
    client.put("/models/tones", content=model_archive((8, 8))).raise_for_status()
    details = client.get(item["links"]["self"]).json()
    assert "has another file of weights now" in details["settings"]["warning"]
    (other,) = keep(client, *sampled(client, num_images=1))
    assert other["class_name"] is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encode_image(PLAIN, "png"), "carries no recipe"),
        (b"GIF89a", "carries no recipe"),
        (b"", "carries no recipe"),
        (b'{"recipe": {}}', "this is JSON"),
        (b"PK\3\4 but no zip", "the zip cannot be read"),
    ],
)
def test_what_carries_no_recipe_is_refused(client, content, reason):
    answer = client.post("/pictures", content=content)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-input")
    assert reason in answer.json()["detail"]
    assert ids(client) == []


def test_of_several_files_all_are_kept_or_none(client):
    files = sampled(client)
    broken = files[2][:-40]  # its recipe is whole, its pixels are not
    answer = client.post("/pictures", files=[("image", file) for file in (*files[:2], broken)])
    assert answer.status_code == 422
    assert "file 3: the image is truncated or damaged" in answer.json()["detail"]
    assert ids(client) == []
    many = client.post("/pictures", files=[("image", files[0])] * (MAX_PICTURES + 1))
    assert f"there are 65 files; it must be 1..{MAX_PICTURES}" in many.json()["detail"]
    other = client.post("/pictures", files={"picture": files[0]})
    assert "there is no field 'picture'" in other.json()["detail"]


def test_no_more_is_unpacked_and_decoded_than_is_allowed(client):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(200_000))
    answer = client.post("/pictures", content=buffer.getvalue())
    assert "larger than a body may be" in answer.json()["detail"]
    files = sampled(client, num_images=1) * (MAX_PIXELS // 128 + 1)
    answer = client.post("/pictures", files=[("image", file) for file in files])
    refusal = "file 8: the image has 8 x 16 = 128 pixels; at most 104"
    assert refusal in answer.json()["detail"]


def test_pictures_are_found_and_paged(client):
    dark = keep(client, *sampled(client, class_label="dark"))
    light = keep(client, *sampled(client, class_label="light", seed=4))
    client.patch(
        "/pictures", json={"ids": [dark[0]["id"], light[0]["id"]], "add_tags": [" best "]}
    ).raise_for_status()
    client.patch(light[1]["links"]["self"], json={"notes": "A Moon", "starred": True})
    every = [item["id"] for item in light + dark]
    assert ids(client) == every
    first = client.get("/pictures", params={"limit": 4}).json()
    assert ([item["id"] for item in first["items"]], first["has_more"]) == (every[:4], True)
    assert ids(client, after=every[3]) == every[4:]
    for query, expected in (
        ({"class": "dark"}, [item["id"] for item in dark]),
        ({"tag": "best"}, [light[0]["id"], dark[0]["id"]]),
        ({"tag": "best", "class": "dark"}, [dark[0]["id"]]),
        ({"starred": True}, [light[1]["id"]]),
        ({"text": "moon"}, [light[1]["id"]]),
        ({"model": "other"}, []),
        ({"since": dark[0]["created_at"]}, every),
        ({"until": "2020-01-01"}, []),
        ({"since": "2020-01-01T00:00:00+02:00", "until": "2999-01-01"}, every),
    ):
        assert ids(client, **query) == expected, query
    assert client.get("/pictures/facets").json() == {
        "num_pictures": 6,
        "num_starred": 1,
        "max_pictures": KEPT,
        "models": [{"name": "tones", "num_pictures": 6}],
        "classes": [{"name": "dark", "num_pictures": 3}, {"name": "light", "num_pictures": 3}],
        "tags": [{"name": "best", "num_pictures": 2}],
    }
    assert client.get("/pictures/facets", params={"model": "other"}).json()["classes"] == []
    assert client.get("/pictures", params={"tag": "a\0"}).status_code == 422


def test_changes_have_bounds(client):
    (item,) = keep(client, *sampled(client, num_images=1))
    address = item["links"]["self"]
    changed = client.patch(address, json={"tags": ["b", "a", "a"], "notes": "x\ny"}).json()
    assert (changed["tags"], changed["notes"], changed["starred"]) == (["a", "b"], "x\ny", False)
    assert client.patch(address, json={"starred": True}).json()["tags"] == ["a", "b"]
    for body, pointer in (
        ({"tags": ["a,b"]}, "/tags/0"),
        ({"tags": ["x" * 41]}, "/tags/0"),
        ({"tags": [" "]}, "/tags/0"),
        ({"tags": [f"{n}" for n in range(21)]}, "/tags"),
        ({"notes": "x" * 2001}, "/notes"),
        ({"notes": "\0"}, "/notes"),
        ({"starred": None}, "/starred"),
        ({"stars": 5}, "/stars"),
    ):
        answer = client.patch(address, json=body)
        assert answer.status_code == 422, body
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    full = client.patch(address, json={"tags": [f"{n}" for n in range(20)]})
    assert len(full.json()["tags"]) == 20
    answer = client.patch("/pictures", json={"ids": [item["id"]], "add_tags": ["more"]})
    assert "would have 21 tags; at most 20" in answer.json()["detail"]
    assert client.patch("/pictures", json={"ids": ["0" * 17]}).status_code == 404
    assert client.patch("/pictures/%00", json={"starred": True}).status_code == 404


def test_deleted_pictures_come_back_together(client):
    items = keep(client, *sampled(client))
    names = [item["id"] for item in items]
    client.patch(items[0]["links"]["self"], json={"tags": ["a"], "starred": True})
    assert client.delete("/pictures", params={"id": names[:2]}).status_code == 204
    assert ids(client) == names[2:]
    assert client.get(items[0]["links"]["file"]).status_code == 404
    (entry,) = client.get("/trash").json()["items"]
    assert (entry["collection"], entry["name"], entry["num_records"]) == ("pictures", names[0], 2)
    restored = client.post(entry["links"]["restore"])
    assert (restored.status_code, restored.headers["location"]) == (200, f"/pictures/{names[0]}")
    assert ids(client) == names
    assert client.get(items[0]["links"]["self"]).json()["tags"] == ["a"]
    assert client.get(items[0]["links"]["file"]).status_code == 200
    assert client.delete(items[0]["links"]["self"]).status_code == 204
    assert client.delete(items[0]["links"]["self"]).status_code == 404
    (entry,) = client.get("/trash").json()["items"]
    client.delete(entry["links"]["remove"]).raise_for_status()
    assert client.delete("/pictures", params={"id": names}).status_code == 404
    assert ids(client) == names[1:]


def test_a_full_gallery_removes_the_oldest_without_a_star(client, data_dir):
    first, second = (keep(client, *sampled(client, num_images=3, seed=n)) for n in (1, 2))
    client.patch(first[2]["links"]["self"], json={"starred": True}).raise_for_status()
    new = sampled(client, num_images=2, seed=9)
    answer = client.post("/pictures", files=[("image", file) for file in new]).json()
    assert (answer["num_new"], answer["num_removed"]) == (2, 2)
    left = [item["id"] for item in (*answer["items"], *second, first[2])]
    assert ids(client) == left
    assert client.get("/trash").json()["items"] == []
    assert len(list((data_dir / "artifacts" / "pictures").iterdir())) == KEPT
    client.patch("/pictures", json={"ids": left, "starred": True}).raise_for_status()
    full = client.post("/pictures", content=sampled(client, seed=10, num_images=1)[0])
    assert (full.status_code, full.json()["type"]) == (409, "/problems/conflict")
    assert f"the gallery keeps {KEPT}, and there is room for 0" in full.json()["detail"]


def test_a_gallery_of_no_pictures_says_so(serve, tmp_path):
    keeping = Keeping(keep_pictures=0)
    settings = Settings(locations=Locations(tmp_path), example_model=False, keeping=keeping)
    with serve(create_app(settings)) as address:
        answer = httpx.post(f"{address}/pictures", content=b"any")
    assert answer.status_code == 422
    assert "DIFFUSION_KEEP_PICTURES is 0" in answer.json()["detail"]


def test_a_damaged_file_is_said_and_marked(client, data_dir):
    (item,) = keep(client, *sampled(client, num_images=1))
    path = data_dir / "artifacts" / "pictures" / item["id"]
    path.write_bytes(path.read_bytes()[:-1])
    answer = client.get(item["links"]["file"])
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/damaged-artifact")
    assert "its sha256 is" in client.get(item["links"]["self"]).json()["damage"]


def test_the_recipe_is_kept_as_it_was(client):
    (file,) = sampled(client, num_images=1)
    (item,) = keep(client, file)
    recipe = client.get(item["links"]["self"]).json()["settings"]["recipe"]
    again = client.post("/sample/again", json=recipe)
    assert again.content == file
    assert carried(again.content)
