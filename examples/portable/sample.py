"""Make images with a portable model, without the service.

    curl 'localhost:8000/models/my-digits/download?format=onnx' -o my-digits.zip
    unzip my-digits.zip -d my-digits
    python sample.py my-digits --seed 7 -n 8 --class 3 --guidance 1.5

The function `sample` follows README.md of the download. It needs onnxruntime and numpy; the program
needs Pillow too.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from noise import normal
from PIL import Image


def sample(network, card, table, seed, num_images=1, label=None, guidance=None):
    """Return uint8 images (num_images, height, width, channels). `label` is the index of a class, a
    list with one for each image, or None for any class, where the model has that. `guidance` of
    None is the model's own."""
    if guidance is None:
        guidance = 1.0 if label is None else card.get("sampling", {}).get("guidance_scale", 1.0)
    if not card.get("has_null_class", True) and (label is None or guidance != 1):
        raise ValueError("this model needs a class, and takes no guidance")
    shape, any_class = (card["channels"], *card["image_size"]), len(card["class_names"])

    def estimate(label):
        feed = {"x": c_in * x, "c_noise": np.full(num_images, c_noise, np.float32)}
        if any_class:
            feed["label"] = np.full(num_images, label, np.int64)
        return p_x * x + p_y * network.run(["y"], feed)[0]

    clip = card.get("sampling", {"clip": 1})["clip"]
    x = table["start"] * normal(seed, num_images, 0, shape)
    x0_prev = x0_prev2 = 0
    for step, row in enumerate(table["rows"], start=1):
        c_in, c_noise, p_x, p_y, k_x, k_0, k_1, k_2, k_s = row
        x0 = estimate(any_class if label is None else label)
        if guidance != 1:
            unguided = estimate(any_class)
            x0 = unguided + guidance * (x0 - unguided)
        x0 = x0 if clip is None else x0.clip(-clip, clip)
        x = k_x * x + k_0 * x0 + k_1 * x0_prev + k_2 * x0_prev2
        if k_s:
            x += k_s * normal(seed, num_images, step, shape)
        x0_prev, x0_prev2 = x0, x0_prev
    pixels = np.round(127.5 * (x.clip(-1, 1) + 1)).astype(np.uint8)
    return pixels.transpose(0, 2, 3, 1)


def main():
    parser = argparse.ArgumentParser(description="Make images with a portable model.")
    parser.add_argument("model", type=Path, help="folder of the unpacked download")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", "--num-images", type=int, default=1)
    parser.add_argument("--class", dest="class_name", help="any class by default")
    parser.add_argument("--guidance", type=float, help="the model's own by default")
    parser.add_argument("--sampler", help="of the tables in samplers.json; the first by default")
    parser.add_argument("--steps", type=int, help="the same")
    parser.add_argument("-o", "--out", type=Path, default=Path("images.png"))
    options = parser.parse_args()

    network = onnxruntime.InferenceSession(options.model / "network.onnx")
    card = json.loads((options.model / "card.json").read_text())
    tables = [
        table
        for table in json.loads((options.model / "samplers.json").read_text())["tables"]
        if options.sampler in (None, table["sampler"])
        and options.steps in (None, table["num_inference_steps"])
    ]
    if not tables:
        parser.error("samplers.json has no such table")
    label = card["class_names"].index(options.class_name) if options.class_name else None
    images = sample(
        network, card, tables[0], options.seed, options.num_images, label, options.guidance
    )
    Image.fromarray(np.concatenate(images, axis=1).squeeze()).save(options.out)


if __name__ == "__main__":
    main()
