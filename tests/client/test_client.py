"""client.client against a real service."""

import io
import json
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.client import Client, JobEnded, Refused, Unreachable
from tests.file_server import a_source

ROOT = Path(__file__).parents[2]
YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)
DIGITS = ROOT / "examples" / "digits" / "digits.zip"
TINY = {
    "steps": 20,
    "batch_size": 16,
    "net": {"block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 4},
}


@pytest.fixture(scope="module")
def client(service):
    with Client(str(service.base_url)) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Thirty digits of three classes, and a file that is hidden."""
    folder = tmp_path_factory.mktemp("digits")
    with zipfile.ZipFile(DIGITS) as archive:
        for label in "012":
            for i in range(10):
                path = folder / label / f"{i}.png"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(archive.read(f"{label}/{i:04}.png"))
    (folder / ".notes").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def model(client, folder):
    client.add_dataset("few", folder)
    job = client.train("few", model_name="little", **TINY)
    states = list(client.watch(job.id))
    assert states[-1].status == "succeeded"
    assert [state.done for state in states] == [False] * (len(states) - 1) + [True]
    return "little"


def test_a_dataset_is_fetched_and_watched_until_it_is_there(client):
    content = DIGITS.read_bytes()
    with a_source(lambda asked: asked.say(content)) as source:
        job = client.import_dataset("fetched", source.url("/digits.zip?key=1"), frames="first")
        assert (job.dataset, job.url) == ("fetched", source.url("/digits.zip"))
        states = list(client.watch_import(job.id))
    assert states[-1].status == "succeeded"
    progress = states[-1].progress
    assert (progress.num_bytes, progress.total_bytes) == (len(content), len(content))
    made = client.dataset("fetched")
    assert (made.num_images, made.reading.frames) == (1797, "first")
    with pytest.raises(Refused, match="succeeded; it cannot be cancelled"):
        client.cancel_import(job.id)


def test_a_folder_is_uploaded_without_hidden_files_and_twice_is_the_same(client, folder, model):
    told = []
    again = client.add_dataset("few", folder, sent=lambda sent, total: told.append((sent, total)))
    assert again.classes == {"0": 10, "1": 10, "2": 10}
    assert again.num_rejected == 0
    assert told[-1][0] == told[-1][1] > 0
    assert "few" in [dataset.name for dataset in client.datasets()]
    assert client.dataset("few") == again
    assert Image.open(io.BytesIO(client.preview("few"))).width > 64


def test_noise_tells_what_was_used_and_makes_it_again(client, folder):
    first = client.noise(folder / "0" / "0.png", [0, 500], num_train_timesteps=600)
    assert first.media_type == "image/png"
    assert first.used["t"] == "0, 500"
    assert Image.open(io.BytesIO(first.content)).size == (16, 8)
    image = (folder / "0" / "0.png").read_bytes()
    again = client.noise(image, [0, 500], seed=int(first.used["seed"]), num_train_timesteps=600)
    assert again == first


def test_a_grid_has_rows_of_the_images_that_sample_makes(client, model):
    steps, classes = ("num_inference_steps", [2, 3]), ("class_label", ["0", "1", None])
    grid = client.grid(model, x=steps, y=classes, seed=4)
    assert [len(row) for row in grid.images] == [2, 2, 2]
    assert Image.open(io.BytesIO(grid.picture)).width > 2 * 8
    used = grid.used[1][0]
    assert (used["num_inference_steps"], used["class_label"]) == (2, [1])
    alone = client.sample(model, seed=4, num_inference_steps=2, class_label="1").images[0]
    assert np.abs(_pixels(grid.images[1][0]) - _pixels(alone)).max() <= 1
    two = client.grid(x=("model", [model, model]), num_inference_steps=2)
    assert np.abs(_pixels(two.images[0][0]) - _pixels(two.images[0][1])).max() <= 1


def test_samples_are_files_and_can_be_made_again(client, model):
    made = client.sample(model, num_images=3, class_label="1", num_inference_steps=3)
    assert [Image.open(io.BytesIO(image)).size for image in made.images] == [(8, 8)] * 3
    assert made.used["class_label"] == [1, 1, 1]
    again = client.sample(
        model, num_images=3, class_label="1", num_inference_steps=3, seed=made.used["seed"]
    )
    for one, other in zip(made.images, again.images, strict=True):
        assert np.abs(_pixels(one) - _pixels(other)).max() <= 1
    remade = client.again(made.images[1])
    assert (remade.content, remade.media_type) == (made.images[1], "image/png")
    assert (remade.exact, remade.warning) == (True, "")
    assert client.again(made.images[1], accept="image/webp").media_type == "image/webp"
    with pytest.raises(Refused, match="carries no recipe"):
        client.again(b"no image")


def test_pictures_are_kept_found_changed_and_deleted(client, model, tmp_path):
    made = client.sample(model, num_images=3, class_label="1", num_inference_steps=3, seed=5)
    path = tmp_path / "2.png"
    path.write_bytes(made.images[2])
    kept = client.keep(*made.images[:2], path)
    assert (kept.num_new, len(kept.items)) == (3, 3)
    assert client.keep(path).num_new == 0
    ids = [picture.id for picture in kept.items]
    assert [p.id for p in client.pictures(model=model, class_name="1", since=YEAR_2000)] == ids
    assert client.picture_file(ids[2]) == made.images[2]
    changed = client.change_picture(ids[0], starred=True, notes="a one", tags=["best"])
    assert (changed.starred, changed.notes, changed.tags) == (True, "a one", ["best"])
    assert client.picture(ids[0]) == changed
    assert changed.settings == client.read_recipe(made.images[0])
    assert changed.settings.request["class_label"] == "1"
    tagged = client.change_pictures(ids[1:], add_tags=["best"], starred=False)
    assert [picture.tags for picture in tagged] == [["best"]] * 2
    client.change_pictures(ids[2:], remove_tags=["best"])
    assert [p.id for p in client.pictures(tag="best", starred=False)] == [ids[1]]
    assert [p.id for p in client.pictures(text="One", until=YEAR_2000)] == []
    facets = client.picture_facets(model)
    assert (facets.num_pictures, facets.tags[0].num_pictures) == (3, 2)
    client.delete_pictures(*ids[1:])
    assert [picture.id for picture in client.pictures()] == ids[:1]
    with pytest.raises(Refused, match="there is no picture"):
        client.delete_pictures(*ids)
    with pytest.raises(Refused, match="carries no recipe"):
        client.keep(b"no image")


def test_an_image_to_start_from_is_given_as_bytes(client, model, folder):
    image = (folder / "0" / "0.png").read_bytes()
    made = client.sample(model, init_image=image, strength=0.34, num_inference_steps=3, seed=1)
    assert made.used["strength"] == 0.34
    assert len(made.images) == 1
    assert client.again(made.images[0], init_image=image).content == made.images[0]


def test_a_trajectory_comes_along_where_it_was_asked_for(client, model):
    made = client.sample(model, trajectory=True, num_inference_steps=3)
    assert [len(steps) for steps in made.trajectories] == [3]


def test_more_images_than_an_answer_holds_are_waited_for(client, model):
    made = client.sample(model, num_images=70, num_inference_steps=2, seed=3)
    assert len(made.images) == 70
    assert made.used["seed"] == 3
    few = client.sample(model, num_images=2, num_inference_steps=2, seed=3)
    for one, other in zip(made.images, few.images, strict=False):
        assert np.abs(_pixels(one) - _pixels(other)).max() <= 1


def test_a_model_is_pulled_and_pushed(client, model, tmp_path):
    path = client.pull_model(model, tmp_path / "little.zip")
    assert list(tmp_path.iterdir()) == [path]
    pushed = client.push_model("copy", path)
    assert pushed.digest == client.model(model).digest
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "folder")
    assert client.push_model("copy", tmp_path / "folder").digest == pushed.digest
    assert (pushed.license, pushed.origin.kind) == (None, "uploaded")
    assert client.set_license("copy", "Apache-2.0").license == "Apache-2.0"
    assert client.share_model("copy").visibility == "shared"
    assert client.share_model("copy", "private").visibility == "private"
    client.delete_model("copy")
    assert client.push_model("copy", path, license="MIT").license == "MIT"
    client.delete_model("copy")
    assert [m.name for m in client.models()] == [model]


def test_a_model_is_pulled_as_onnx(client, model, tmp_path):
    options = {"sampler": ["ddim"], "num_inference_steps": [3, 5]}
    path = client.pull_model(model, tmp_path / "little.zip", file_format="onnx", **options)
    with zipfile.ZipFile(path) as archive:
        assert "network.onnx" in archive.namelist()
        tables = json.loads(archive.read("samplers.json"))["tables"]
    assert [len(table["rows"]) for table in tables] == [3, 5]


def test_a_model_that_is_not_there_leaves_no_file(client, tmp_path):
    with pytest.raises(Refused, match="nobody") as refused:
        client.pull_model("nobody", tmp_path / "nobody.zip")
    assert refused.value.status == 404
    assert list(tmp_path.iterdir()) == []


def test_a_job_is_paused_resumed_and_cancelled(client, model):
    job = client.train("few", **{**TINY, "steps": 100_000})
    states = client.watch(job.id)
    while not next(states).progress:
        pass
    client.pause(job.id)
    while next(states).status != "paused":
        pass
    assert client.resume(job.id).status in ("queued", "running")
    client.cancel(job.id)
    assert list(client.watch(job.id))[-1].status == "cancelled"
    assert job.id in [each.id for each in client.jobs(status="cancelled")]
    events = [json.loads(line)["event"] for line in _log(client, job.id).splitlines()]
    assert events.index("checkpoint") < events.index("stopped")
    client.annotate(job.id, tags=["left", "early"])
    assert client.annotate(job.id, notes="cancelled").tags == ["left", "early"]
    assert [(each.id, each.notes) for each in client.jobs(tag="early")] == [(job.id, "cancelled")]
    assert job.id not in [each.id for each in client.queue().items]
    client.delete_job(job.id)
    with pytest.raises(Refused):
        client.job(job.id)


def _log(client, job_id):
    """Sent when a process has ended, which is after the job's record says so."""
    deadline = time.monotonic() + 30
    while "stopped" not in (log := client.log(job_id)):
        assert time.monotonic() < deadline, log
        time.sleep(0.1)
    return log


def test_a_plan_is_what_the_job_was(client, model):
    job = next(job for job in client.jobs() if job.model_name == model)
    plan = client.plan("few", **TINY)
    assert plan.config == job.config
    assert plan.model_name == "few-1"


def test_metrics_and_checkpoints_are_typed(client, model):
    job = next(job for job in client.jobs() if job.model_name == model)
    assert [line.step for line in client.metrics(job.id).steps] == [1, 10, 20]
    assert [checkpoint.step for checkpoint in client.checkpoints(job.id).items][-1] == 20


def test_an_evaluation_is_waited_for(client, model):
    result = client.evaluate(
        model, num_images=20, num_inference_steps=2, features="random", likelihood_images=0
    )
    assert result["made"]["frechet"] > 0


def test_a_job_that_is_cancelled_while_it_is_waited_for_says_so(service, client, model):
    def cancel() -> None:
        while not (jobs := service.get("/evaluations?limit=1").json()["items"]) or jobs[0]["done"]:
            pass
        service.post(jobs[0]["links"]["cancel"])

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(JobEnded, match="cancelled"):
        client.evaluate(model, num_images=20_000, num_inference_steps=500)
    thread.join()


@pytest.mark.parametrize("name", ["no such", "a/b", "../up", "x" * 300])
def test_a_bad_name_is_refused_and_reaches_the_service_as_it_is(client, name, folder):
    with pytest.raises(Refused) as refused:
        client.add_dataset(name, folder)
    assert refused.value.status in (404, 422)


def test_what_is_refused_names_the_field(client, model):
    with pytest.raises(Refused, match="num_inference_steps") as refused:
        client.sample(model, num_inference_steps=0)
    assert refused.value.status == 422
    assert refused.value.problem["errors"][0]["pointer"] == "/num_inference_steps"


def test_where_nothing_listens_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(Unreachable, match=str(port)):
        client.ready()


def test_a_connection_that_breaks_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(address) as client, pytest.raises(Unreachable, match="broke"):
            client.ready()
        thread.join()


def test_the_key_is_sent_as_a_bearer_token():
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            heard.append(connection.recv(10_000))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", api_key="secret") as client:
            assert client.ready() == {}
        thread.join()
    assert b"authorization: bearer secret" in heard[0].lower()


def test_a_service_below_a_path_is_used_by_its_whole_address(run_service, tmp_path):
    settings = {
        "DIFFUSION_ROOT_PATH": "/diffusion",
        "DIFFUSION_MAX_IMAGES_PER_REQUEST": "2",
        "DIFFUSION_EXAMPLE_MODEL": "1",
    }
    with run_service(tmp_path, {"workers": "up: 2 alive"}, **settings) as service:
        url = str(service.base_url.join("/diffusion/"))
        with Client(url) as client:
            made = client.sample("emoji", num_images=3, num_inference_steps=1)  # becomes a job
            assert len(made.images) == 3
        command = [sys.executable, "-m", "app.cli.main", "--url", url, "--json"]
        for order in (["models", "list"], ["sample", "emoji", "-n", "1", "-o", str(tmp_path)]):
            done = subprocess.run([*command, *order], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert "emoji" in done.stdout


def test_watching_outlives_a_service_that_starts_again(service, client, model):
    """A relay stands for the service; it goes away and comes back while the job is watched."""
    job = next(client.jobs())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    came_back = threading.Timer(2.0, _relay, (port, service.base_url.port))
    came_back.start()
    with Client(f"http://127.0.0.1:{port}") as watcher:
        assert next(watcher.watch(job.id, patience=30)).id == job.id
    came_back.join()


def test_watching_a_service_that_stays_away_ends(client):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as watcher, pytest.raises(Unreachable):
        next(watcher.watch("job_1", patience=0.5))


def _relay(port: int, target: int) -> None:
    """One connection, one request, one answer."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        connection, _ = listener.accept()
        with connection, socket.create_connection(("127.0.0.1", target)) as there:
            there.sendall(connection.recv(10_000))
            there.settimeout(2.0)
            with suppress(TimeoutError):
                while part := there.recv(100_000):  # an answer may come in parts
                    connection.sendall(part)


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)
