"""README.md of a model's folder: its card, with front matter as on the Hugging Face Hub.

    ---
    license: apache-2.0          an id of SPDX in lower case; or `other`, with `license_name`
    library_name: diffusers
    ---

    # my-digits
    ...

A README that was uploaded is kept, and given what its front matter lacks, and the program that
makes images where it has none.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from models.fields import Invalid
from models.pipeline.card import ModelCard
from models.sampling.plan import K
from models.sampling.request import (
    DEFAULT_CONSISTENCY_STEPS,
    DEFAULT_STEPS,
    SampleRequest,
    plan_for,
)
from models.sampling.samplers import DISTILLED_SAMPLER, PLAIN_SAMPLER

README = "README.md"
MAX_LICENSE = 200  # characters
MAX_README = 2**20  # bytes; a longer one is not read
MAX_FRONT_MATTER = 2**16  # characters
_LICENSE_KEYS = ("license", "license_name", "license_link")

FrontMatter = Mapping[str, Any]


def checked_license(text: str) -> str:
    """Return a license, an SPDX id or other text, without space around it. Raises Invalid."""
    text = text.strip()
    if not (0 < len(text) <= MAX_LICENSE and text.isprintable()):
        rule = f"it must have 1..{MAX_LICENSE} printable characters"
        raise Invalid("license", text[: MAX_LICENSE + 1], rule)
    return text


def read_license(folder: Path) -> str | None:
    """Return the license that the folder's README gives, None without one. Raises Invalid where
    that is out of bounds."""
    front_matter, _ = _read(folder / README)
    license_ = _license_of(front_matter or {})
    return None if license_ is None else checked_license(license_)


def write_readme(
    folder: Path, card: ModelCard, license_: str | None, text: str, program: str = ""
) -> None:
    """Write the README with this text and program (`usage`); one that is there keeps its own, and
    what its front matter has beside the license. A README whose front matter cannot be read stays
    as it is."""
    theirs: FrontMatter | None = {}
    if (folder / README).exists():
        theirs, text = _read(folder / README)
    if theirs is None:
        return
    if HEADING not in text:
        text += program
    if _license_of(theirs) != license_:
        theirs = {key: value for key, value in theirs.items() if key not in _LICENSE_KEYS}
    front_matter = {**_license_fields(license_), **_about(card), **theirs}
    header = yaml.safe_dump(front_matter, sort_keys=False, allow_unicode=True)
    content = f"---\n{header}---\n\n{text}"
    (folder / README).write_text(content, "utf-8", errors="surrogateescape")


HEADING = "## With diffusers"
_USAGE = f"""
{HEADING}

```python
import torch
{{imports}}
from PIL import Image

unet = UNet2DModel.from_pretrained(".", subfolder="unet")  # "." is this folder
{{before}}x = {{scale}}torch.randn({{shape}})
{{labels}}with torch.no_grad():
{{loop}}
images = (127.5 * (x.clamp(-1, 1) + 1)).round().byte()
for i, image in enumerate(images.movedim(1, -1).numpy()):
    Image.fromarray(image.squeeze()).save(f"{{{{i}}}}.png")
```

{{notes}}
"""
_SCHEDULER = """scheduler = {scheduler}.from_pretrained(".", subfolder="scheduler")
{levels}
"""
_LOOP = """    for t in scheduler.timesteps:
        y = unet({x_in}, t{labelled}).sample
        x = scheduler.step(y, t, x{clipped}).prev_sample"""
_FLOW_LEVELS = """T, steps = {T}, {steps}
t = torch.round(T - torch.arange(steps) * (T / steps))
scheduler.set_timesteps(sigmas=(t / T).tolist(), timesteps=(t - 1).tolist())"""
_ROWS = """rows = [  # c_in, c_noise, p_x, p_y, k_x, k_0, k_s
{rows}
]
"""
_ROWS_LOOP = """    for c_in, c_noise, p_x, p_y, k_x, k_0, k_s in rows:
        y = unet(c_in * x, torch.tensor(c_noise){labelled}).sample
        x0 = (p_x * x + p_y * y){clipped}
        x = k_x * x + k_0 * x0 + k_s * torch.randn_like(x)"""
_COLUMNS = (K.C_IN, K.C_NOISE, K.P_X, K.P_F, K.K_X, K.K_0, K.K_S)
_NO_CLASSES = (
    "DDPMPipeline, which model_index.json names, gives the network no class, so that it raises "
    "`class_labels should be provided`."
)


def usage(card: ModelCard, null_class: int | None = None) -> str:
    """Return how diffusers samples a folder that was saved here: Markdown, with a program that
    writes four images. `null_class` is the embedding of no class where it is not the last."""
    count = len(card.class_names)
    labelled = ", class_labels=labels" if count else ""
    if card.consistency or (card.schedule.name == "flow" and card.prediction_type != "flow"):
        parts = _by_rows(card, labelled)
    else:
        parts = _by_scheduler(card, labelled)
    if count:
        parts["notes"] += f" {_NO_CLASSES}"
    shape = ", ".join(map(str, (4, card.channels, *card.image_size)))
    labels = f"labels = torch.full((4,), {_class(card, null_class)}\n" if count else ""
    return _USAGE.format(shape=shape, labels=labels, **parts)


def _class(card: ModelCard, null_class: int | None) -> str:
    """Return the number of a class, and what the others are."""
    count = len(card.class_names)
    if not card.has_null_class:
        return f"0)  # a class in 0..{count - 1}"
    if null_class in (None, count):
        return f"0)  # a class in 0..{count - 1}, or {count} for any"
    return f"{card.class_names[0]})  # a class's number, or {null_class} for any"


def _by_scheduler(card: ModelCard, labelled: str) -> dict[str, str]:
    """Return the parts of a program with the model's scheduler of diffusers."""
    name, T = card.schedule.name, card.schedule.num_train_timesteps
    steps = max(n for n in range(1, min(50, T) + 1) if T % n == 0)
    scheduler, levels, clipped = "DDIMScheduler", f"scheduler.set_timesteps({steps})", ""
    note = "The service also keeps each estimate of the clean image within -1..1; this does not."
    if name == "edm":
        scheduler = "EDMEulerScheduler"
    elif name == "flow":
        scheduler, levels = "FlowMatchEulerDiscreteScheduler", _FLOW_LEVELS.format(T=T, steps=steps)
        note = (
            "Without these sigmas the scheduler spends its last step between 1/T and 0, and "
            f"without these timesteps the network is told a time that is off by one. {note}"
        )
    else:
        clipped = ", use_clipped_model_output=True"
        note = (
            f"The number of steps must divide {T}: DDIMScheduler leaves noise in the image "
            f"otherwise. DDPMScheduler takes any number up to {T}; DDPMPipeline asks for 1000 "
            "unless it is given num_inference_steps."
        )
    return {
        "imports": f"from diffusers import {scheduler}, UNet2DModel",
        "before": _SCHEDULER.format(scheduler=scheduler, levels=levels),
        "scale": "scheduler.init_noise_sigma * " if name == "edm" else "",
        "loop": _LOOP.format(
            x_in="scheduler.scale_model_input(x, t)" if name == "edm" else "x",
            labelled=labelled,
            clipped=clipped,
        ),
        "notes": note,
    }


def _by_rows(card: ModelCard, labelled: str) -> dict[str, str]:
    """Return the parts of a program for a model that no scheduler of diffusers samples: its own
    sampler, as the numbers of each step (models.sampling.update)."""
    steps = DEFAULT_CONSISTENCY_STEPS if card.consistency else DEFAULT_STEPS
    request = SampleRequest(
        0,
        sampler=DISTILLED_SAMPLER if card.consistency else PLAIN_SAMPLER,
        num_inference_steps=min(steps, card.schedule.num_train_timesteps),
        labels=(0,) if card.class_names else None,
    )
    plan = plan_for(card, request)
    rows = ",\n".join(f"    ({', '.join(str(row[k]) for k in _COLUMNS)})" for row in plan.rows)
    bound = card.sampling.clip
    return {
        "imports": "from diffusers import UNet2DModel",
        "before": _ROWS.format(rows=rows),
        "scale": f"{plan.from_noise} * ",
        "loop": _ROWS_LOOP.format(
            labelled=labelled, clipped=f".clamp({-bound:g}, {bound:g})" if bound else ""
        ),
        "notes": (
            "No scheduler of diffusers samples a model of this kind. The rows are those of the "
            f"service's sampler `{request.sampler}` in {len(plan)} steps: its estimate of the "
            "clean image is x0 = p_x x + p_y y, and the next x is k_x x + k_0 x0 + k_s noise."
        ),
    }


def _about(card: ModelCard) -> FrontMatter:
    if card.class_names:
        return {"library_name": "diffusers", "tags": ["class-conditional-image-generation"]}
    kind = "unconditional-image-generation"  # a task of the Hub
    return {"library_name": "diffusers", "pipeline_tag": kind, "tags": [kind]}


def _license_fields(license_: str | None) -> FrontMatter:
    if license_ is None:
        return {}
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", license_):
        return {"license": license_.lower()}
    return {"license": "other", "license_name": license_}


def _license_of(front_matter: FrontMatter) -> str | None:
    license_ = front_matter.get("license")
    if license_ == "other":
        license_ = front_matter.get("license_name") or license_
    if isinstance(license_, list):
        license_ = ", ".join(str(each) for each in license_)
    return license_ if isinstance(license_, str) and license_ != "unknown" else None


# Front matter -------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """YAML without merge keys, by which a short text becomes an endless mapping."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        pass


def _read(path: Path) -> tuple[FrontMatter | None, str]:
    """Return the front matter and the text that follows; None for one that cannot be read."""
    if not path.exists():
        return {}, ""
    if path.stat().st_size > MAX_README:
        return None, ""
    text = path.read_text("utf-8", errors="surrogateescape")
    found = re.match(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n\s*|\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        return {}, text
    if len(found[1]) > MAX_FRONT_MATTER:
        return None, text
    try:
        front_matter = yaml.load(found[1], _Loader) or {}
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date that is none
        return None, text
    return (front_matter if isinstance(front_matter, dict) else None), text[found.end() :]
