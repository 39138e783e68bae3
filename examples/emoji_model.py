"""Train the model that an empty service begins with, and write it to app/registry/emoji.zip.

    python examples/emoji_model.py --minutes 100 --out demo/emoji

does it with a service of its own in the output folder, as anybody would: it uploads emoji.zip,
trains, evaluates, and downloads the model. Its weights are then rounded to float16. It also writes
samples.png, neighbours.png (each image beside the nearest emoji it learned from) and
evaluation.json.
"""

import argparse
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from safetensors.numpy import load, save
from train_archive import draw_samples, evaluate, finished

from app.registry.example import ARCHIVE, NAME

from demo import service

IMAGES = Path(__file__).parent / "emoji" / "emoji.zip"
RECIPE: dict[str, Any] = {
    "image_size": 32,
    "net": {"block_out_channels": [32, 64, 64]},
    "seed": 1,
}
LICENSE = "apache-2.0"
WRITTEN = (2024, 10, 1, 0, 0, 0)  # the same zip for the same weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=100.0)
    parser.add_argument("--out", type=Path, default=Path("demo/emoji"))
    parser.add_argument("--resume", metavar="JOB", help="a job in the output folder to go on with")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with service(options.out) as url, httpx.Client(base_url=url, timeout=600) as client:
        if options.resume:
            request: dict[str, Any] = {"resume_from": {"job": options.resume}}
        else:
            client.put(f"/datasets/{NAME}", content=IMAGES.read_bytes()).raise_for_status()
            request = {**RECIPE, "dataset": NAME, "model_name": NAME}
        request |= {"minutes": options.minutes}
        job = finished(client, client.post("/train-jobs", json=request))
        model = job["model_name"]
        draw_samples(client, job, options.out / "samples.png")
        client.patch(f"/models/{model}", json={"license": LICENSE}).raise_for_status()
        evaluation = evaluate(client, model, None)
        neighbours = client.get(evaluation["links"]["neighbours"]).raise_for_status()
        download = client.get(f"/models/{model}/download").raise_for_status()
    (options.out / "neighbours.png").write_bytes(neighbours.content)
    (options.out / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n")
    (options.out / "job.json").write_text(json.dumps(job, indent=2) + "\n")
    ARCHIVE.write_bytes(in_half(download.content))
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size / 1e6:.1f} MB; pictures are in {options.out}/")


def in_half(download: bytes) -> bytes:
    """Return a downloaded model with weights of float16, which a service reads as it reads
    float32; its README then has their sha256."""
    with zipfile.ZipFile(io.BytesIO(download)) as source:
        files = {name: source.read(name) for name in sorted(source.namelist())}
    (weights,) = (name for name in files if name.endswith(".safetensors"))
    half = save({name: values.astype(np.float16) for name, values in load(files[weights]).items()})
    readme = files["README.md"].decode().replace(sha256(files[weights]), sha256(half))
    files |= {weights: half, "README.md": readme.encode()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, WRITTEN)
            info.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(info, content)
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    main()
