"""An experiment: do later steps correct an error that is added to x_t at one step?

For the digits, it plots against the step of the error the share of images that a classifier of real
digits still reads as the requested class, and their distance to the undisturbed images. This is the
figure of docs/disturbance.md:

    .venv/bin/python examples/disturbance.py docs/images/disturbance.png

It trains like the demo (but with the classic objective), on its own service or at DIFFUSION_URL;
`make demo` installs its dependencies. It takes about eight minutes on two CPU cores.
"""

import io
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC

import demo

STRENGTH = 0.5
PER_CLASS = 20
SAMPLERS = {"ddim": "deterministic (ddim)", "euler_ancestral": "stochastic (euler_ancestral)"}
STEPS = {10: range(10), 100: [*range(0, 100, 10), 95, 99]}


@dataclass
class Curve:
    """Measurements against `done`, the share of the steps that were done before the error."""

    done: list[float]
    agreement: list[float]
    distance: list[float]
    undisturbed: float  # agreement


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/disturbance.png")
    demo.OUT.mkdir(exist_ok=True)
    with demo.service(demo.OUT) as url, httpx.Client(base_url=url, timeout=300) as client:
        demo.upload(client)
        model = demo.train(client, preset="ddpm")["model_name"]
        curves = {
            (sampler, steps): measure(client, model, sampler, steps)
            for sampler in SAMPLERS
            for steps in STEPS
        }
    draw(curves, path)
    print(f"figure: {path}")


def measure(client: httpx.Client, model: str, sampler: str, steps: int) -> Curve:
    real = load_digits()
    classifier = SVC().fit(real.data, real.target)
    labels = [digit for digit in range(10) for _ in range(PER_CLASS)]

    def made(**disturbance: object) -> np.ndarray:
        return sample(
            client, model, labels, sampler=sampler, num_inference_steps=steps, **disturbance
        )

    def agreement(images: np.ndarray) -> float:
        return float(classifier.score(images.reshape(len(images), -1) / 255 * 16, labels))

    calm = made()
    curve = Curve([], [], [], agreement(calm))
    for at in STEPS[steps]:
        images = made(disturb={"at": at, "strength": STRENGTH})
        curve.done.append(at / steps)
        curve.agreement.append(agreement(images))
        curve.distance.append(float(np.sqrt(np.mean((images - calm) ** 2))))
        print(
            f"{sampler}, error at step {at} of {steps}: {curve.agreement[-1]:.1%} agree "
            f"({curve.undisturbed:.1%} undisturbed), distance {curve.distance[-1]:.1f} grey levels"
        )
    return curve


def sample(client: httpx.Client, model: str, labels: list[int], **request: object) -> np.ndarray:
    """Make images, float (N, 8, 8) in 0..255, from the same noise each time."""
    images = []
    for start in range(0, len(labels), 50):
        part = labels[start : start + 50]
        body = {"model": model, "num_images": len(part), "class_label": part, "seed": start}
        answer = client.post("/sample", json=body | request, headers={"Accept": "application/zip"})
        with zipfile.ZipFile(io.BytesIO(answer.raise_for_status().content)) as archive:
            images += [Image.open(io.BytesIO(archive.read(name))) for name in archive.namelist()]
    return np.stack([np.asarray(image, float) for image in images])


def draw(curves: dict[tuple[str, int], Curve], path: Path) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (sampler, steps), curve in curves.items():
        look = {
            "color": "tab:blue" if sampler == "ddim" else "tab:orange",
            "linestyle": "-" if steps == 100 else "--",
            "marker": "o",
            "markersize": 3,
            "label": f"{SAMPLERS[sampler]}, {steps} steps",
        }
        left.plot(curve.done, [100 * a for a in curve.agreement], **look)
        right.plot(curve.done, curve.distance, **look)
    left.set(ylabel="classifier agrees, %", ylim=(80, 100.5))
    right.set(ylabel="distance to the undisturbed image\n(RMS, grey levels)", ylim=(0, None))
    for axes in (left, right):
        axes.set_xlabel("share of the steps done before the error")
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    FigureCanvasAgg(figure).print_png(path)


if __name__ == "__main__":
    main()
