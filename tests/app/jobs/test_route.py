"""Jobs of every kind can be listed, polled, followed, cancelled and deleted at their address."""

from collections.abc import Iterator

import httpx
import pytest

from app.settings import Settings
from models.diffusion.schedule import ScheduleConfig
from models.evaluation.config import EvaluationConfig
from models.pipeline.card import ModelCard
from models.sampling.request import SampleRequest
from models.training.config import resolve_config
from models.training.defaults import DatasetFacts
from store.database import Database
from store.jobs import claims, requests
from store.jobs.kinds import JOB_KINDS, KINDS, Kind
from store.jobs.progress import Progress
from store.jobs.record import Job, Webhook
from store.models import delete_model
from store.nodes import heartbeat, leave
from store.webhooks import deliveries_of, new_secret
from tests.store.records import a_dataset, a_model

WEIGHTS = {"prefix": "models/faces", "digest": "0"}
REQUEST = SampleRequest(seed=1, num_images=3, num_inference_steps=4)
CONFIGS: dict[Kind, dict[str, object]] = {
    "train": resolve_config(DatasetFacts(40, 1, (8, 8), ()), steps=10).to_dict(),
    "sample": {
        **WEIGHTS,
        "request": REQUEST.to_dict(),
        "deterministic": False,
        "precision": "float32",
        "used": {
            "model": "faces",
            "model_digest": "0",
            "seed": 1,
            "sampler": "ddim",
            "num_inference_steps": 4,
            "spacing": "linspace",
            "class_label": None,
            "guidance_scale": 1.0,
            "guidance_interval": None,
            "eta": 0.0,
            "strength": None,
            "invert": False,
            "seed_to": None,
            "disturb": None,
            "deterministic": False,
            "precision": "float32",
        },
    },
    "evaluate": {
        **WEIGHTS,
        "evaluation": EvaluationConfig(num_images=100).to_dict(),
        "held_out": None,
    },
    "import": {
        "name": "photos",
        "url": "https://example.org/photos.zip",
        "labels": "auto",
        "frames": "refuse",
        "range": "full",
        "max_bytes": 1000,
        "max_pixels": 1000,
    },
}


@pytest.fixture
def records(client: httpx.Client, settings: Settings) -> Iterator[Database]:
    """The database of the server that `client` asks."""
    database = Database(settings.locations.database_url)
    yield database
    database.close()


def a_job_of(kind: Kind, database: Database, webhook: Webhook | None = None) -> Job:
    a_dataset(database)
    return requests.create_job(
        database,
        kind,
        config=CONFIGS[kind],
        model_name="faces",
        dataset=None if kind == "sample" else "photos",
        webhook=webhook,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_any_kind_has_the_same_life_at_its_address(kind, client, records) -> None:
    job = a_job_of(kind, records)
    collection, address = f"/{JOB_KINDS[kind].collection}", JOB_KINDS[kind].address(job.id)

    assert client.get(collection).json()["items"][0]["id"] == job.id
    answer = client.get(address).json()
    assert (answer["id"], answer["status"]) == (job.id, "queued")
    assert answer["links"]["self"] == address

    told = client.get(answer["links"]["events"], headers={"Accept": "application/json"})
    assert [event["type"] for event in told.json()["items"]] == ["queued"]

    assert client.delete(address).status_code == 409
    cancelled = client.post(answer["links"]["cancel"])
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    stream = client.get(f"{address}/events").text
    assert stream.index("event: queued") < stream.index("event: cancelled")

    assert client.delete(address).status_code == 204
    assert client.get(address).status_code == 404


@pytest.mark.parametrize("kind", KINDS)
def test_a_queued_job_says_that_no_worker_takes_it_as_long_as_none_does(
    kind, client, records
) -> None:
    job = a_job_of(kind, records)
    collection, address = JOB_KINDS[kind].collection, JOB_KINDS[kind].address(job.id)
    alone = client.get(address)
    assert alone.json()["waiting"] == f"no live worker takes {collection}: such jobs wait for one"
    known = {"If-None-Match": alone.headers["ETag"]}
    assert client.get(address, headers=known).status_code == 304

    heartbeat(records, "worker", kinds=[kind])
    taken = client.get(address, headers=known)
    assert taken.status_code == 200
    assert taken.json()["waiting"] is None
    assert collection not in client.get("/readyz").json()["components"]["workers"]["detail"]
    leave(records, "worker")

    client.post(f"{address}/cancel").raise_for_status()
    assert client.get(address).json()["waiting"] is None
    client.delete(address).raise_for_status()


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_can_be_paused_and_resumed_where_its_kind_can(kind, client, records) -> None:
    job = a_job_of(kind, records)
    address = JOB_KINDS[kind].address(job.id)
    answers = [client.post(f"{address}/{action}") for action in ("pause", "resume")]
    if JOB_KINDS[kind].can_pause:
        assert [answer.json()["status"] for answer in answers] == ["paused", "queued"]
    else:
        assert [answer.status_code for answer in answers] == [404, 404]
    client.post(f"{address}/cancel").raise_for_status()
    client.delete(address).raise_for_status()


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_webhook_links_to_answers(kind, client, records) -> None:
    job = a_job_of(kind, records, Webhook("https://example.com/hook", new_secret()))
    fence = claims.claim(records, job.id, "one", 60)
    assert fence is not None
    if JOB_KINDS[kind].makes_model:
        model = a_model("faces")
        model.details = ModelCard((8, 8), 1, (), ScheduleConfig("linear"), "v").to_dict()
        claims.succeed_with_model(records, job.id, fence, model, Progress())
    else:
        claims.succeed(records, job.id, fence, Progress())

    (delivery,) = deliveries_of(records, job.id)
    assert delivery.event == f"{kind}_job.completed"
    links = delivery.payload["links"]
    assert ("model" in links) == JOB_KINDS[kind].makes_model
    for name, link in links.items():
        answer = client.get(link)
        assert answer.status_code == 200, answer.text
        assert answer.json()["name" if name == "model" else "id"] in (job.id, "faces")

    client.delete(links["self"]).raise_for_status()
    if "model" in links:
        delete_model(records, "faces")


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_another_kind_is_not_found_at_the_address(kind, client, records) -> None:
    job = a_job_of(kind, records)
    for other in KINDS:
        status = client.get(JOB_KINDS[other].address(job.id)).status_code
        assert status == (200 if other == kind else 404)
    address = JOB_KINDS[kind].address(job.id)
    client.post(f"{address}/cancel").raise_for_status()
    client.delete(address).raise_for_status()
