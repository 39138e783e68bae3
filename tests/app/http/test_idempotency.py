"""Idempotency-Key: a request that is sent twice makes one job."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.app.access.test_guard import archive

KEY = "Idempotency-Key"


@pytest.fixture(scope="module")
def body(client):
    client.put("/datasets/once", content=archive()).raise_for_status()
    return {"dataset": "once", "steps": 10}


def jobs(client) -> int:
    return len(client.get("/train-jobs", params={"limit": 100}).json()["items"])


def test_a_repeat_is_answered_as_the_first_was(client, body):
    first = client.post("/train-jobs", json=body, headers={KEY: "a"})
    count = jobs(client)
    again = client.post("/train-jobs", json=body, headers={KEY: "a"})
    assert first.status_code == again.status_code == 202
    assert again.content == first.content
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["X-Request-ID"] != first.headers["X-Request-ID"]
    assert jobs(client) == count
    other = client.post("/train-jobs", json=body, headers={KEY: "b"})
    assert other.json()["id"] != first.json()["id"]


def test_another_request_with_its_key_is_refused(client, body):
    client.post("/train-jobs", json=body, headers={KEY: "c"}).raise_for_status()
    for path, other in (("/train-jobs", {**body, "steps": 11}), ("/train-jobs/plan", body)):
        answer = client.post(path, json=other, headers={KEY: "c"})
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert (error["parameter"], error["in"]) == (KEY, "header")


def test_many_at_once_make_one(client, body):
    before = jobs(client)
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(lambda _: client.post("/train-jobs", json=body, headers={KEY: "d"}), range(24))
        )
    assert {answer.status_code for answer in answers} <= {202, 409}
    made = [answer for answer in answers if answer.status_code == 202]
    assert len({answer.json()["id"] for answer in made}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in made) == 1
    assert jobs(client) == before + 1


def test_a_refusal_leaves_the_key_free(client, body):
    refused = client.post("/train-jobs", json={**body, "steps": 0}, headers={KEY: "e"})
    assert refused.status_code == 422
    assert client.post("/train-jobs", json=body, headers={KEY: "e"}).status_code == 202


def test_an_edit_is_made_once(client, body):
    edit = {"rename": {"cat": "lynx"}}
    first = client.post("/datasets/once/versions", json=edit, headers={KEY: "f"})
    again = client.post("/datasets/once/versions", json=edit, headers={KEY: "f"})
    assert (first.status_code, again.content) == (201, first.content)


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\tb"])
def test_a_key_out_of_bounds_is_refused(client, body, key):
    headers = {KEY.encode(): key.encode()}
    answer = client.post("/train-jobs", json=body, headers=headers)
    assert answer.status_code == 422
    assert "1..255 printable ASCII characters" in answer.json()["detail"]


def test_a_body_that_is_too_large_for_it_is_refused(client):
    answer = client.post("/datasets/once/images", content=b"x" * (2**20 + 1), headers={KEY: "g"})
    assert answer.status_code == 422
    assert "at most 1048576 bytes" in answer.json()["detail"]


def test_images_are_made_again(client, model_archive):
    client.put("/models/once", content=model_archive()).raise_for_status()
    order = {"model": "once", "num_inference_steps": 2, "seed": 1}
    headers = {KEY: "h", "Accept": "image/png"}
    first = client.post("/sample", json=order, headers=headers).raise_for_status()
    again = client.post("/sample", json=order, headers=headers).raise_for_status()
    assert again.content == first.content
    assert "Idempotency-Replayed" not in again.headers
