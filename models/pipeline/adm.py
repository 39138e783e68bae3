"""The nets of ADM (Dhariwal and Nichol 2021), as UNet2DModel names their parts.

guided-diffusion and improved-diffusion call a tensor `input_blocks.4.0.in_layers.2.weight`. EDM's
DhariwalUNet is the same net with names like `enc.32x32_down.conv0.weight`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from models.fields import Invalid
from models.nets.config import DownBlockType, UNetConfig, UpBlockType

GROUPS = 32  # of every normalisation

# How the rows of the tensor `qkv` are laid out, the outermost first: by guided-diffusion in the
# "new attention order" and without it, and by EDM.
Order = Literal["qkv, heads, channels", "heads, qkv, channels", "heads, channels, qkv"]

_NAME = re.compile(
    r"((?:input|output)_blocks\.\d+\.\d+|middle_block\.\d+|time_embed\.\d|out\.\d|label_emb)"
    r"\.(?:(.+)\.)?(weight|bias)"
)
_AROUND = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_INSIDE = {
    None: "",
    "in_layers.0": ".norm1",
    "in_layers.2": ".conv1",
    "emb_layers.1": ".time_emb_proj",
    "out_layers.0": ".norm2",
    "out_layers.3": ".conv2",
    "skip_connection": ".conv_shortcut",
    "op": ".conv",  # a convolution that halves the image
    "conv": ".conv",  # or follows its doubling
    "norm": ".group_norm",
    "proj_out": ".to_out.0",
}
_AROUND_OF_EDM = {
    "map_layer0": "time_embed.0",
    "map_layer1": "time_embed.2",
    "out_norm": "out.0",
    "out_conv": "out.2",
}
_RESNET_OF_EDM = {
    "": "",
    "norm0": ".in_layers.0",
    "conv0": ".in_layers.2",
    "affine": ".emb_layers.1",
    "norm1": ".out_layers.0",
    "conv1": ".out_layers.3",
    "skip": ".skip_connection",
}
_ATTENTION_OF_EDM = {"norm2": ".norm", "qkv": ".qkv", "proj": ".proj_out"}


@dataclass(frozen=True)
class AdmNet:
    """A net as the config and the tensors of a UNet2DModel, and what of it was left out."""

    config: UNetConfig
    tensors: dict[str, Tensor]
    left: list[str]


def adm_net(
    tensors: Mapping[str, Tensor],
    order: Order,
    *,
    num_heads: int | None = None,
    num_head_channels: int | None = None,
) -> AdmNet:
    """Return the net of tensors that are named as by guided-diffusion.

    Each attention has num_heads, or heads of num_head_channels. A learned variance, the second half
    of the output, is left out. Raises Invalid where the net is no UNet2DModel.
    """
    try:
        heads = _Heads(tensors, order, num_heads, num_head_channels)
        ours = _renamed(tensors, _places(tensors), heads)
        left = _without_variance(ours)
        return AdmNet(_config(ours, heads), ours, left)
    except KeyError as missing:
        raise Invalid.because(f"the net lacks the tensor {missing}") from None


class _Heads:
    """The heads of the attention: as many channels in each, everywhere."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        order: Order,
        num_heads: int | None,
        num_head_channels: int | None,
    ) -> None:
        self.order = order.split(", ")
        widths = sorted({t.shape[1] for name, t in tensors.items() if name.endswith("qkv.weight")})
        sizes = {num_head_channels or width // (num_heads or 1) for width in widths}
        if len(sizes) > 1:
            raise Invalid.because(
                f"each attention has {num_heads or 1} heads, for {widths} channels; the heads of a "
                "UNet2DModel have as many channels everywhere"
            )
        self.channels = min(sizes, default=None)
        if self.channels is not None and any(width % self.channels for width in widths):
            raise Invalid.because(f"heads of {self.channels} channels do not divide {widths}")

    def split(self, rows: Tensor) -> Iterator[Tensor]:
        """Yield the rows of q, k and v, of which a tensor (3 C, ...) has those of all."""
        assert self.channels is not None
        heads = rows.shape[0] // (3 * self.channels)
        sizes = {"qkv": 3, "heads": heads, "channels": self.channels}
        parts = rows.reshape(*(sizes[name] for name in self.order), *rows.shape[1:2])
        for part in parts.unbind(self.order.index("qkv")):
            yield part.flatten(0, 1)


def _places(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the name of each part here, by the one there."""
    parts = {found[1] for name in tensors if (found := _NAME.fullmatch(name))}
    doubles = {
        part
        for part in parts
        if re.fullmatch(r"output_blocks\.\d+\.[12]", part)
        and (f"{part}.in_layers.0.weight" in tensors or f"{part}.conv.weight" in tensors)
    }
    count_in, count_out = (
        len({part.split(".")[1] for part in parts if part.startswith(side)})
        for side in ("input_blocks", "output_blocks")
    )
    each, rest = divmod(count_out, len(doubles) + 1)  # blocks of a level
    if rest or count_in != count_out or each < 2:
        raise Invalid.because(
            f"the net has {count_in} input_blocks and {count_out} output_blocks, and doubles the "
            f"image {len(doubles)} times; a UNet2DModel has equally many at each level"
        )
    places = dict(_AROUND)
    for part in (part for part in parts - set(_AROUND) if "put_blocks" in part):
        side, block = part.split(".")[:2]
        what = "attentions" if f"{part}.qkv.weight" in tensors else "resnets"
        if side == "input_blocks":
            level, i = divmod(int(block) - 1, each)
            inside = f"{what}.{i}" if i < each - 1 else "downsamplers.0"
            places[part] = f"down_blocks.{level}.{inside}"
        else:
            level, i = divmod(int(block), each)
            inside = f"{what}.{i}" if part not in doubles else "upsamplers.0"
            places[part] = f"up_blocks.{level}.{inside}"
    return places


def _renamed(
    tensors: Mapping[str, Tensor], places: Mapping[str, str], heads: _Heads
) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        part, inside, kind = found.groups() if found else ("", "", "")
        if part not in places or inside not in {*_INSIDE, "qkv"}:
            raise Invalid.because(f"the net has {name!r}, which no UNet2DModel has")
        if inside == "qkv":
            for to, rows in zip("qkv", heads.split(tensor), strict=True):
                ours[f"{places[part]}.to_{to}.{kind}"] = rows
        else:
            is_linear = inside == "proj_out" and kind == "weight"
            ours[f"{places[part]}{_INSIDE[inside]}.{kind}"] = (
                tensor.flatten(1) if is_linear else tensor
            )
    return ours


def _without_variance(ours: dict[str, Tensor]) -> list[str]:
    """Drop the second half of the output where there is one, and return what was dropped."""
    channels = ours["conv_in.weight"].shape[1]
    if ours["conv_out.weight"].shape[0] != 2 * channels:
        return []
    for name in ("conv_out.weight", "conv_out.bias"):
        ours[name] = ours[name][:channels]
    return [f"the learned variance: output channels {channels}..{2 * channels - 1}"]


def _config(ours: Mapping[str, Tensor], heads: _Heads) -> UNetConfig:
    """Return the config of the UNet2DModel with these tensors."""
    resnets = [re.fullmatch(r"down_blocks\.(\d+)\.resnets\.(\d+)\.conv1\.bias", n) for n in ours]
    levels, layers = (1 + max(int(found[i]) for found in resnets if found) for i in (1, 2))
    widths = tuple(ours[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels))
    waves = ours["time_embedding.linear_1.weight"].shape[1]
    if waves != widths[0]:
        raise Invalid.because(
            f"the time embedding is of {waves} waves; a UNet2DModel has as many as channels at its "
            f"first level, {widths[0]}"
        )
    in_resnet = any(name.startswith("down_blocks.0.downsamplers.0.norm1") for name in ours)
    plain: tuple[DownBlockType, UpBlockType] = (
        ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
        if in_resnet
        else ("DownBlock2D", "UpBlock2D")
    )
    down: list[DownBlockType] = []
    up: list[UpBlockType] = []
    for level in range(levels):
        attends = _attends(ours, f"down_blocks.{level}", layers)
        down.append("AttnDownBlock2D" if attends else plain[0])
        attends = _attends(ours, f"up_blocks.{level}", layers + 1)
        up.append("AttnUpBlock2D" if attends else plain[1])
    projection = ours["mid_block.resnets.0.time_emb_proj.weight"]
    scales = projection.shape[0] == 2 * widths[-1]
    labels = ours.get("class_embedding.weight")
    return UNetConfig(
        in_channels=ours["conv_in.weight"].shape[1],
        out_channels=ours["conv_out.weight"].shape[0],
        block_out_channels=widths,
        layers_per_block=layers,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        attention_head_dim=heads.channels,
        norm_num_groups=GROUPS,
        downsample_type="resnet" if in_resnet else "conv",
        upsample_type="resnet" if in_resnet else "conv",
        num_class_embeds=None if labels is None else labels.shape[0],
        resnet_time_scale_shift="scale_shift" if scales else "default",
        attn_norm_num_groups=GROUPS,
    )


def _attends(ours: Mapping[str, Tensor], block: str, layers: int) -> bool:
    count = sum(f"{block}.attentions.{i}.to_q.weight" in ours for i in range(layers))
    if count not in (0, layers):
        raise Invalid.because(
            f"{count} of the {layers} layers of {block} have attention; of a UNet2DModel's all or "
            "none"
        )
    return count > 0


def names_of_edm(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of EDM's DhariwalUNet under the names of guided-diffusion, and the names
    of those that a model does not need: filters of ones, and the projection of augmentation labels,
    which are 0 outside of training."""
    places = _places_of_edm(tensors)
    found: dict[str, Tensor] = {}
    left = []
    for name, tensor in tensors.items():
        around, _, kind = name.rpartition(".")
        side, block, part = (*around.split("."), "", "")[:3]
        resnet, attention = places.get(f"{side}.{block}", ("", ""))
        if kind == "resample_filter" or side == "map_augment":
            left.append(name)
        elif side == "map_label":
            found["label_emb.weight"] = tensor.T  # what a label, one-hot, is multiplied by
        elif side in _AROUND_OF_EDM:
            found[f"{_AROUND_OF_EDM[side]}.{kind}"] = tensor
        elif resnet and part in _RESNET_OF_EDM:
            found[f"{resnet}{_RESNET_OF_EDM[part]}.{kind}"] = tensor
        elif attention and part in _ATTENTION_OF_EDM:
            found[f"{attention}{_ATTENTION_OF_EDM[part]}.{kind}"] = tensor
        else:
            raise Invalid.because(f"the net has {name!r}, which no DhariwalUNet has")
    return found, left


def _places_of_edm(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, str]]:
    """Return the names in guided-diffusion of each block's ResNet block and of its attention."""
    blocks = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in tensors))
    encoder = [block for block in blocks if block.startswith("enc.")]
    places = {b: (f"input_blocks.{i}.0", f"input_blocks.{i}.1") for i, b in enumerate(encoder)}
    i, last = -1, ""
    for block in (block for block in blocks if block.startswith("dec.")):
        if block.endswith("_in0"):
            places[block] = ("middle_block.0", "middle_block.1")
        elif block.endswith("_in1"):
            places[block] = ("middle_block.2", "")
        elif block.endswith("_up"):
            place = 2 if f"{last}.qkv.weight" in tensors else 1
            places[block] = (f"output_blocks.{i}.{place}", "")
        else:
            i, last = i + 1, block
            places[block] = (f"output_blocks.{i}.0", f"output_blocks.{i}.1")
    return places
