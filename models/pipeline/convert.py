"""`python -m models.pipeline.convert CHECKPOINT OUT`: pickled weights, as a folder for the service.

The service opens no pickle. This runs where the checkpoint is yours; it takes tensors alone, runs
nothing that the checkpoint names (models.pipeline.pickles), and says what it took and what it left.
It knows

- folders of diffusers with pickled weights, the average in `unet_ema` before others,
- files with the tensors of a UNet2DModel, alone or in the checkpoint of a training (--config),
- files of guided-diffusion and improved-diffusion, with flags of their training,
- network snapshots of EDM with a DhariwalUNet.
"""

import argparse
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from host.folders import staged_folder
from models.diffusion.config import ModelConfig, SamplingConfig
from models.diffusion.schedule import ScheduleConfig
from models.fields import Invalid
from models.pipeline.adm import GROUPS, AdmNet, adm_net, names_of_edm
from models.pipeline.folder import SCHEDULER, read_config, read_weights, write_configs
from models.pipeline.pickles import Inert, read_checkpoint
from models.pipeline.torch_folder import write_weights

# Two tensors that tell whose net it is.
_SIGNATURES = {
    "diffusers": ("conv_in.weight", "time_embedding.linear_1.weight"),
    "guided-diffusion": ("input_blocks.0.0.weight", "time_embed.0.weight"),
    "denoising-diffusion-pytorch": ("init_conv.weight", "time_mlp.1.weight"),
}
# Weights of a folder, the first that there are: as diffusers names them, and accelerate.
_WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model-*-of-*.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model-*-of-*.bin",
    "diffusion_pytorch_model.*.bin",
    "pytorch_model.bin",
    "model.safetensors",
)
# What a UNet2DModel lacks of a net of denoising-diffusion-pytorch, by the end of a tensor's name.
_NOT_EXPRESSIBLE = {
    ".norm.g": "each pixel is normalised over its channels (RMSNorm), not groups of channels over "
    "the image",
    ".mem_kv": "attention has keys and values of its own beside those of the pixels",
    ".to_qkv.weight": "attention is linear, or has another width than its level",
    "init_conv.weight": "the first convolution is of 7 x 7 pixels",
    "downs.0.3.1.weight": "where the image is halved, 2 x 2 pixels become channels",
    "final_res_block.mlp.1.weight": "the last ResNet block joins the first convolution's output",
}
_SONG = (
    "the net is a SongUNet (DDPM++, NCSN++), which a UNet2DModel cannot express: its blocks that "
    "halve and double the image have a convolution in their shortcut, sums are scaled by "
    "sqrt(1/2), and on the way up only the last layer of a level has attention"
)


@dataclass(frozen=True)
class Flags:
    """Flags of guided-diffusion's training, which its files do not say."""

    image_size: int | None = None
    num_heads: int | None = None
    num_head_channels: int | None = None
    use_new_attention_order: bool = False
    noise_schedule: Literal["linear", "cosine"] | None = None
    diffusion_steps: int = 1000
    rescale_timesteps: bool = False
    predict_xstart: bool = False


@dataclass
class Report:
    """What was taken, with the number of its tensors, and what was left."""

    took: str
    num_tensors: int
    left: list[str] = field(default_factory=list)


def convert(
    checkpoint: Path,
    out: Path,
    *,
    config: Path | None = None,
    scheduler: Path | None = None,
    prefix: str | None = None,
    flags: Flags | None = None,
) -> Report:
    """Write the folder `out`, which must not exist yet, from a folder or a file.

    `config` and `scheduler` are JSON files of diffusers, where a checkpoint has none. `prefix`
    chooses one of several nets in a file. Raises Invalid where the weights cannot be had without
    running code, or are not those of a UNet2DModel; then nothing is written.
    """
    if not checkpoint.exists():
        raise Invalid.because(f"{checkpoint} does not exist")
    if checkpoint.is_dir():
        return _convert_folder(checkpoint, out, scheduler)
    content = read_checkpoint(checkpoint)
    if (network := _network_of_edm(content)) is not None:
        return _convert_edm(network, out)
    tensors = dict(_named(content))
    family, chosen = _choose(content, tensors, prefix)
    net = {name.removeprefix(chosen): t for name, t in tensors.items() if name.startswith(chosen)}
    place = f"the net at {chosen!r}" if chosen else "the net"
    took = f"{place} (an average)" if _is_average(chosen) else place
    left = _by_place(name for name in tensors if not name.startswith(chosen))
    if family == "denoising-diffusion-pytorch":
        reasons = [
            f"{shown[0]}: {reason}"
            for end, reason in _NOT_EXPRESSIBLE.items()
            if (shown := [name for name in net if name.endswith(end)])
        ]
        raise Invalid.because(
            f"{took} is one of {family}, which a UNet2DModel cannot express:\n  "
            + "\n  ".join(reasons)
        )
    if family == "guided-diffusion":
        left += _write_guided(net, out, flags or Flags())
    elif config is None:
        raise Invalid.because(f"{took} is a UNet2DModel; give its config.json (--config)")
    else:
        _write_unet(out, net, config, scheduler)
    return Report(took, len(net), left)


# Tensors of a file --------------------------------------------------------------------------------


def _named(content: object, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in dictionaries, by the dotted path to each."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            if isinstance(value, Tensor) and isinstance(name, str):
                yield f"{place}{name}", value
            elif isinstance(name, str):
                yield from _named(value, f"{place}{name}.")


def _choose(content: object, tensors: Mapping[str, Tensor], prefix: str | None) -> tuple[str, str]:
    """Return whose net is taken, and the beginning of its names; an average before others."""
    found = {
        name.removesuffix(one): family
        for family, (one, other) in _SIGNATURES.items()
        for name in tensors
        if name.endswith(one) and name.removesuffix(one) + other in tensors
    }
    if any(".first_stage_model." in f".{name}" for name in tensors):
        raise Invalid.because("the file has a latent diffusion model, whose net makes no pixels")
    if not found:
        without = " and averages without names" if _has_nameless(content) else ""
        raise Invalid.because(
            f"the file has no net that is known, but {len(tensors)} named tensors{without}: "
            f"{', '.join(_by_place(tensors)[:9])}"
        )
    if prefix is not None and prefix not in found:
        raise Invalid("prefix", prefix, f"the file has nets at {sorted(found)}")
    averages = [place for place in found if _is_average(place)]
    chosen = averages or list(found) if prefix is None else [prefix]
    if len(chosen) > 1:
        raise Invalid.because(f"the file has nets at {sorted(chosen)}; choose one with --prefix")
    return found[chosen[0]], chosen[0]


def _is_average(place: str) -> bool:
    return re.search(r"(^|[._])ema[._]", place.lower()) is not None and "online" not in place


def _has_nameless(content: object) -> bool:
    return isinstance(content, Mapping) and "shadow_params" in content  # of EMAModel.state_dict


def _by_place(names: Iterable[str]) -> list[str]:
    """Return the beginnings of the names, with how many begin so."""
    counts = Counter(".".join(name.split(".")[:2]) for name in names)
    return [f"{place} ({count})" for place, count in counts.items()]


# diffusers ----------------------------------------------------------------------------------------


def _convert_folder(folder: Path, out: Path, scheduler: Path | None) -> Report:
    places = (folder / "unet_ema", folder / "unet", folder)
    unet = next((p for p in places if (p / "config.json").is_file() and _weight_files(p)), None)
    if unet is None:
        raise Invalid.because(
            f"{folder} has no config.json with weights beside it, in unet_ema, unet or itself; "
            f"weights are {', '.join(_WEIGHTS)}"
        )
    files = _weight_files(unet)
    tensors = dict(pair for path in files for pair in _named(read_checkpoint(path)))
    if scheduler is None:
        known = [place / SCHEDULER for place in (folder, folder.parent)]
        scheduler = next((path for path in known if path.is_file()), None)
    config, readme = unet / "config.json", folder / "README.md"
    _write_unet(out, tensors, config, scheduler, readme)
    there = {path for place in places for path in place.glob("*") if path.is_file()}
    left = sorted(there - {*files, config, readme, folder / "model_index.json"})
    took = ", ".join(str(path.relative_to(folder)) for path in files)
    return Report(took, len(tensors), [str(path.relative_to(folder)) for path in left])


def _weight_files(folder: Path) -> list[Path]:
    """Return the file of the weights, or their shards."""
    found = next((files for name in _WEIGHTS if (files := sorted(folder.glob(name)))), [])
    if len(found) > 1 and not all("-of-" in path.name for path in found):
        names = ", ".join(path.name for path in found)
        raise Invalid.because(f"the weights are there in several variants: {names}; keep one")
    return found


def _write_unet(
    out: Path,
    tensors: Mapping[str, Tensor],
    config: Path,
    scheduler: Path | None = None,
    readme: Path | None = None,
) -> None:
    """Write a folder of diffusers, with these files as they are."""
    with staged_folder(out) as part:
        copies = {"unet/config.json": config, SCHEDULER: scheduler, "README.md": readme}
        for name, source in copies.items():
            if source is not None and source.is_file():
                (part / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source, part / name)
        _write_checked(part, tensors)


def _write_checked(part: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the weights beside their configs, and read all as the service does."""
    write_weights(part, {name: tensor.clone() for name, tensor in tensors.items()})
    read_weights(part, read_config(part))


# ADM ----------------------------------------------------------------------------------------------


def _write_guided(net: Mapping[str, Tensor], out: Path, flags: Flags) -> list[str]:
    """Write a net of guided-diffusion or improved-diffusion, and return what of it was left."""
    size, schedule = flags.image_size, flags.noise_schedule
    if size is None or schedule is None or not (flags.num_heads or flags.num_head_channels):
        raise Invalid.because(
            "the net is one of guided-diffusion, whose files do not say how it was trained; give "
            "--image-size, --noise-schedule, and --num-head-channels or --num-heads, as then"
        )
    steps = flags.diffusion_steps
    if flags.rescale_timesteps and steps != 1000:
        rule = (
            f"with {steps} diffusion_steps the net was told 1000 t/{steps}, and here it is told t"
        )
        raise Invalid("rescale_timesteps", True, rule)
    adm = adm_net(
        net,
        "qkv, heads, channels" if flags.use_new_attention_order else "heads, qkv, channels",
        num_heads=flags.num_heads,
        num_head_channels=flags.num_head_channels,
    )
    first, last = 0.1 / steps, min(20 / steps, 0.9999)
    _write_adm(
        out,
        adm,
        ModelConfig(
            adm.config,
            ScheduleConfig(schedule, steps, beta_start=first, beta_end=last),
            "x0" if flags.predict_xstart else "epsilon",
            sigma_data=0.5,
            image_size=(size, size),
            class_names=_numbers(adm.config.num_class_embeds),
            sampling=SamplingConfig(variance="fixed_small" if adm.left else "fixed_large"),
        ),
    )
    return adm.left


def _write_adm(out: Path, adm: AdmNet, config: ModelConfig) -> None:
    if adm.config.in_channels not in (1, 3):
        raise Invalid.because(
            f"the net has {adm.config.in_channels} channels, and images have 1 or 3: it is one of "
            "latent diffusion or of super-resolution"
        )
    with staged_folder(out) as part:
        write_configs(part, config, {})
        _write_checked(part, adm.tensors)


def _numbers(count: int | None) -> tuple[str, ...]:
    return tuple(str(i) for i in range(count or 0))


# EDM ----------------------------------------------------------------------------------------------


def _network_of_edm(content: object) -> Inert | None:
    """Return the averaged network of a snapshot, or None where it is another kind of file."""
    network = content.get("ema") if isinstance(content, Mapping) else None
    return network if isinstance(network, Inert) and network.kind else None


def _convert_edm(network: Inert, out: Path) -> Report:
    net = network.module("model")
    if network.kind != "EDMPrecond" or net is None:
        raise Invalid.because(f"the network is a {network.kind}; supported is EDMPrecond")
    if net.kind != "DhariwalUNet":
        known = _SONG if net.kind == "SongUNet" else f"the net is a {net.kind}"
        raise Invalid.because(f"{known}; supported is DhariwalUNet (ADM)")
    there = net.tensors()
    tensors, left = names_of_edm(there)
    narrowest = min(t.shape[0] for name, t in there.items() if "norm" in name)
    if narrowest < 4 * GROUPS:
        raise Invalid.because(
            f"the net is {narrowest} channels wide; below {4 * GROUPS} its groups of channels "
            "differ in number"
        )
    classes = _numbers(network.get("label_dim"))
    if classes and net.get("label_dropout"):  # trained with labels of zeros, too
        rows = tensors["label_emb.weight"]
        tensors["label_emb.weight"] = torch.cat([rows, torch.zeros_like(rows[:1])])
    adm = adm_net(tensors, "heads, channels, qkv", num_head_channels=64)
    size = network.get("img_resolution")
    _write_adm(
        out,
        adm,
        ModelConfig(
            adm.config,
            ScheduleConfig("edm"),
            "edm",
            sigma_data=float(network.get("sigma_data")),
            image_size=(size, size),
            class_names=classes,
        ),
    )
    took = "the net at 'ema' (an average), a DhariwalUNet in EDMPrecond"
    return Report(took, len(tensors), _by_place(left))


# The command --------------------------------------------------------------------------------------


def main() -> int:
    about, _, known = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m models.pipeline.convert",
        description=f"{about}\n\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="a file, or a folder of diffusers")
    parser.add_argument("out", type=Path, help="the folder to write, which must not exist yet")
    parser.add_argument("--config", type=Path, help="config.json of a UNet2DModel in a file")
    parser.add_argument("--scheduler", type=Path, help="scheduler_config.json, where none is known")
    parser.add_argument("--prefix", help="where the tensors of the net begin, of several in a file")
    guided = parser.add_argument_group("flags that a net of guided-diffusion was trained with")
    for name in ("image-size", "num-heads", "num-head-channels"):
        guided.add_argument(f"--{name}", type=int)
    guided.add_argument("--diffusion-steps", type=int, default=1000)
    guided.add_argument("--noise-schedule", choices=("linear", "cosine"))
    for name in ("use-new-attention-order", "rescale-timesteps", "predict-xstart"):
        guided.add_argument(f"--{name}", action="store_true")
    arguments = parser.parse_args()
    flags = Flags(**{each.name: getattr(arguments, each.name) for each in fields(Flags)})
    try:
        report = convert(
            arguments.checkpoint,
            arguments.out,
            config=arguments.config,
            scheduler=arguments.scheduler,
            prefix=arguments.prefix,
            flags=flags,
        )
    except (Invalid, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"took {report.took}: {report.num_tensors} tensors")
    for each in report.left:
        print(f"left {each}")
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
