"""A service that trains is backed up, and another one goes on from the backup elsewhere."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits.zip"
TINY_NET = {"block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 4}
IMAGE = {"model": "tones", "seed": 3, "num_inference_steps": 4, "precision": "float32"}


def command(data_dir: Path, name: str, *arguments: object) -> str:
    """What a command prints that succeeds."""
    done = subprocess.run(
        [sys.executable, "-m", f"store.upkeep.{name}", *map(str, arguments)],
        env={**os.environ, "DIFFUSION_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def a_png(client: httpx.Client) -> bytes:
    answer = client.post("/sample", json=IMAGE, headers={"Accept": "image/png"})
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_service_under_load_is_restored_elsewhere(run_service, tmp_path, model_archive):
    here, there = tmp_path / "here", tmp_path / "there"
    states = {"workers": "up: 2 alive"}
    settings = {"DIFFUSION_TRAIN_NICENESS": "0", "DIFFUSION_TRAIN_THREADS": "1"}
    with run_service(here, states, **settings) as client:
        client.put("/models/tones", content=model_archive()).raise_for_status()
        client.put("/datasets/digits", content=DIGITS.read_bytes()).raise_for_status()
        request = {"dataset": "digits", "model_name": "little", "steps": 1_000_000}
        request |= {"batch_size": 8, "checkpoint_every": 50, "net": TINY_NET}
        job = client.post("/train-jobs", json=request).json()["links"]["self"]
        while not client.get(f"{job}/checkpoints").json()["items"]:
            client.get(job, params={"wait": 1})
        made = a_png(client)
        stop = threading.Event()
        stored = threading.Thread(target=change_models, args=(client, model_archive(), stop))
        stored.start()
        try:
            command(here, "backup", tmp_path / "backup")
            command(here, "backup", tmp_path / "backup")
        finally:
            stop.set()
            stored.join()
        step = client.get(job).json()["progress"]["step"]
        assert client.post(f"{job}/cancel").status_code == 202
    command(there, "restore", tmp_path / "backup")
    assert "0 files are damaged" in command(there, "verify")
    with run_service(there, states, **settings) as client:
        assert a_png(client) == made
        polled = client.get(job).json()  # it was running, and goes on from its checkpoint
        while polled["status"] != "running" or polled["progress"]["step"] <= step:
            assert not polled["done"], polled
            polled = client.get(job, params={"wait": 2}).json()
        events = client.get(f"{job}/events", headers={"Accept": "application/json"}).json()
        assert [e["type"] for e in events["items"]].count("resumed") == 1
        assert client.post(f"{job}/cancel").status_code == 202


def change_models(client: httpx.Client, archive: bytes, stop: threading.Event) -> None:
    """Upload and delete models until `stop`."""
    number = 0
    while not stop.wait(1.0):
        number += 1
        client.put(f"/models/copy-{number}", content=archive).raise_for_status()
        if number > 2:
            client.delete(f"/models/copy-{number - 2}").raise_for_status()
