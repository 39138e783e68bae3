"""The U-Net that denoises: ResNet blocks at several resolutions, attention at some of them.

Ho et al. 2020, appendix B. Parameter names and block types are those of diffusers' UNet2DModel, so
that weights can be exchanged both ways; diffusers itself is not needed here.

    x --conv_in--> down blocks --> mid block --> up blocks --conv_out--> y
                       \\________ skip connections ________/
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval, Len
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention, silu
from typing_extensions import Doc

from models.fields import Example, Invalid, Label, NotOffered, check_fields
from models.nets.dropout import Dropout

DownBlockType = Literal["DownBlock2D", "AttnDownBlock2D"]
UpBlockType = Literal["UpBlock2D", "AttnUpBlock2D"]

MAX_CHANNELS = 2048
MAX_CLASSES = 1_000_000  # as many as an archive may hold images
MAX_PERIOD = 10_000.0  # of the time embedding's slowest wave

_OF_IMAGES = NotOffered("the number of channels is that of the images")
_OF_DIFFUSERS = NotOffered("needed only to read nets that diffusers has trained")


@dataclass(frozen=True)
class UNetConfig:
    """The net's shape, with the names that diffusers gives its parts."""

    in_channels: Annotated[
        int, Interval(ge=1, le=MAX_CHANNELS), Doc("channels of the input"), _OF_IMAGES
    ] = 3
    out_channels: Annotated[
        int, Interval(ge=1, le=MAX_CHANNELS), Doc("channels of the output"), _OF_IMAGES
    ] = 3
    block_out_channels: Annotated[
        tuple[Annotated[int, Interval(ge=1, le=MAX_CHANNELS)], ...],
        Len(1, 8),
        Doc(
            "channels at each resolution, 1..8 of them; between two the image is halved. "
            "Each must be a multiple of norm_num_groups and of attention_head_dim."
        ),
        Label("Channels of the net"),
        Example([32, 64]),
    ] = (32, 64)
    layers_per_block: Annotated[
        int,
        Interval(ge=1, le=8),
        Doc("1..8; where left out 1 on a CPU, 2 on a GPU"),
        Label("Layers per block"),
    ] = 1
    down_block_types: Annotated[
        tuple[DownBlockType, ...],
        Doc(
            "`DownBlock2D` or, with attention, `AttnDownBlock2D` for each resolution; "
            "attention at the lowest where left out"
        ),
        Label("Blocks on the way down"),
        Example(["DownBlock2D", "AttnDownBlock2D"]),
    ] = ("DownBlock2D", "AttnDownBlock2D")
    up_block_types: Annotated[
        tuple[UpBlockType, ...],
        Doc("the same on the way back, from the lowest resolution: `UpBlock2D` or `AttnUpBlock2D`"),
        Label("Blocks on the way up"),
        Example(["AttnUpBlock2D", "UpBlock2D"]),
    ] = ("AttnUpBlock2D", "UpBlock2D")
    attention_head_dim: Annotated[
        int | None,  # None: one head
        Interval(ge=1, le=MAX_CHANNELS),
        Doc("channels of an attention head; where left out 32 on a CPU, 64 on a GPU"),
        Label("Channels of an attention head"),
    ] = 32
    norm_num_groups: Annotated[
        int,
        Interval(ge=1, le=MAX_CHANNELS),
        Doc("groups of each normalisation; where left out 8 on a CPU, 32 on a GPU"),
        Label("Groups of each normalisation"),
    ] = 32
    norm_eps: Annotated[
        float,
        Interval(ge=1e-12, le=1.0),
        Doc("added to the variance in each normalisation"),
        _OF_DIFFUSERS,
    ] = 1e-5
    downsample_padding: Annotated[
        Literal[0, 1], Doc("padding of the convolution that halves the image"), _OF_DIFFUSERS
    ] = 1
    flip_sin_to_cos: Annotated[
        bool, Doc("whether cosines come first in the time embedding"), _OF_DIFFUSERS
    ] = True
    freq_shift: Annotated[
        float,
        Interval(ge=0.0, le=1.0),
        Doc("shifts the time embedding's frequencies"),
        _OF_DIFFUSERS,
    ] = 0.0
    dropout: Annotated[
        float,
        Interval(ge=0.0, le=0.9),
        Doc(
            "0..0.9; it helps where images are few. Where left out 0 or 0.25 on a CPU, 0.1 "
            "or 0.25 on a GPU, chosen from the data."
        ),
        Label("Dropout"),
    ] = 0.0
    num_class_embeds: Annotated[
        int | None,
        Interval(ge=1, le=MAX_CLASSES + 1),
        Doc('K + 1, the last embedding being "no class"; None for an unconditional net'),
        NotOffered("class_conditional decides, with the dataset's classes"),
    ] = None
    add_attention: Annotated[
        bool, Doc("whether the block at the lowest resolution has attention"), _OF_DIFFUSERS
    ] = True
    resnet_time_scale_shift: Annotated[
        Literal["default", "scale_shift"],
        Doc("whether the embedding is added, or scales and shifts the normalised values"),
        NotOffered("scale_shift on a GPU, where nets are wide, else default"),
    ] = "default"

    def __post_init__(self) -> None:
        self._check_levels()
        check_fields(self)
        self._check_channels()

    def _check_levels(self) -> None:
        levels = len(self.block_out_channels)
        for field in ("down_block_types", "up_block_types"):
            if (count := len(getattr(self, field))) != levels:
                raise Invalid.because(
                    f"{field} has {count} entries; block_out_channels has {levels}", field=field
                )

    def _check_channels(self) -> None:
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise Invalid.because(
                    f"block_out_channels holds {channels}; each must be a multiple of "
                    f"norm_num_groups, {self.norm_num_groups}",
                    field="block_out_channels",
                )
            if self.attention_head_dim and channels % self.attention_head_dim:
                raise Invalid(
                    "attention_head_dim",
                    self.attention_head_dim,
                    f"it must divide block_out_channels, which hold {channels}",
                )
        if self.block_out_channels[0] % 2:
            raise Invalid.because(
                f"block_out_channels begins with {self.block_out_channels[0]}; that must be even, "
                "for a sine and a cosine of each wave of the time embedding",
                field="block_out_channels",
            )

    @classmethod
    def small(cls, image_size: tuple[int, int], channels: int, num_classes: int) -> "UNetConfig":
        """Return a net that learns such images in minutes, with attention at the lowest resolution.

        It has 32 channels and about a million parameters up to 28 pixels, and is wider and deeper
        beyond.
        """
        longest = max(image_size)
        width = 32 if longest < 32 else 64
        multiples = {True: (1, 2), longest > 16: (1, 2, 2), longest >= 64: (1, 2, 2, 4)}[True]
        if longest >= 128:
            multiples = (1, 1, 2, 2, 4)
        while len(multiples) > 1 and any(s % 2 ** (len(multiples) - 1) for s in image_size):
            multiples = multiples[:-1]
        down, up = block_types([False] * (len(multiples) - 1) + [True])
        return cls(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(width * m for m in multiples),
            down_block_types=down,
            up_block_types=up,
            num_class_embeds=num_classes + 1 if num_classes else None,
        )

    @classmethod
    def large(cls, image_size: tuple[int, int], channels: int, num_classes: int) -> "UNetConfig":
        """Return a net for a GPU, with attention at the levels of 16 pixels and below.

        It has 128 channels, and 36 million parameters at 32 pixels.
        """
        longest = max(image_size)
        multiples: tuple[int, ...] = (1, 2) if longest <= 16 else (1, 2, 2, 2)
        if longest >= 128:
            multiples = (1, 1, 2, 2, 2)
        while len(multiples) > 1 and any(s % 2 ** (len(multiples) - 1) for s in image_size):
            multiples = multiples[:-1]
        down, up = block_types([longest >> level <= 16 for level in range(len(multiples))])
        return cls(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(128 * m for m in multiples),
            layers_per_block=2,
            down_block_types=down,
            up_block_types=up,
            attention_head_dim=64,
            num_class_embeds=num_classes + 1 if num_classes else None,
            resnet_time_scale_shift="scale_shift",
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "UNetConfig":
        """Return the config that JSON holds, where tuples are lists."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**fields)

    def check_image_size(self, height: int, width: int) -> None:
        """Raise Invalid unless each of the net's halvings gives whole pixels."""
        multiple = 2 ** (len(self.block_out_channels) - 1)
        for side in (height, width):
            if side % multiple:
                raise Invalid.because(
                    f"image_size is {height} x {width}; each side must be a multiple of "
                    f"{multiple}, since the net halves it {len(self.block_out_channels) - 1} times",
                    field="image_size",
                )


def block_types(
    attention: Sequence[bool],
) -> tuple[tuple[DownBlockType, ...], tuple[UpBlockType, ...]]:
    """Return the types of the blocks on the way down and up, from where attention shall be.

    `attention` has an entry for each resolution, the highest first.
    """
    down: list[DownBlockType] = ["AttnDownBlock2D" if here else "DownBlock2D" for here in attention]
    up: list[UpBlockType] = [
        "AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attention)
    ]
    return tuple(down), tuple(up)


class UNet(nn.Module):
    """The network: y (B, C_out, H, W) of x (B, C_in, H, W), c_noise (B,) float and label (B,) int64
    or None.

    `augmentation` (B, 4 block_out_channels[0]) or None is added to the embeddings of both. It is
    used in training only (models.training.augment).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.block_out_channels
        embedding = 4 * widths[0]
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], embedding)
        if config.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(config.num_class_embeds, embedding)
        self.down_blocks = nn.ModuleList()
        skips = [widths[0]]
        for level, width in enumerate(widths):
            last = level == len(widths) - 1
            attention = config.down_block_types[level] == "AttnDownBlock2D"
            self.down_blocks.append(DownBlock(config, skips[-1], width, attention, not last))
            skips += [width] * (config.layers_per_block + (not last))
        self.mid_block = MidBlock(config, widths[-1])
        self.up_blocks = nn.ModuleList()
        channels = widths[-1]
        for level, width in enumerate(reversed(widths)):
            last = level == len(widths) - 1
            attention = config.up_block_types[level] == "AttnUpBlock2D"
            joined = [skips.pop() for _ in range(config.layers_per_block + 1)]
            self.up_blocks.append(UpBlock(config, channels, joined, width, attention, not last))
            channels = width
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[0], config.norm_eps)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)  # the first output is 0 everywhere
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        config = self.config
        waves = sinusoids(c_noise, config.block_out_channels[0], config)
        embedding = self.time_embedding(waves.to(x.dtype))
        if label is not None:
            embedding = embedding + self.class_embedding(label)
        if augmentation is not None:
            embedding = embedding + augmentation
        embedding = silu(embedding)
        x = self.conv_in(x)
        skips = [x]
        for down in self.down_blocks:
            x = down(x, embedding, skips)
        x = self.mid_block(x, embedding)
        for up in self.up_blocks:
            x = up(x, embedding, skips)
        y: Tensor = self.conv_out(silu(self.conv_norm_out(x)))
        return y


def sinusoids(c_noise: Tensor, width: int, config: UNetConfig) -> Tensor:
    """Return (B, width): sines and cosines of c_noise at frequencies from 1 to 1 / MAX_PERIOD."""
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=c_noise.device)
    frequencies = MAX_PERIOD ** (-exponent / (half - config.freq_shift))
    phase = c_noise.float()[:, None] * frequencies[None, :]
    pair = [phase.cos(), phase.sin()] if config.flip_sin_to_cos else [phase.sin(), phase.cos()]
    return torch.cat(pair, dim=1)


class TimeEmbedding(nn.Module):
    """Two layers from the sinusoids of c_noise (B, waves) to the embedding (B, width)."""

    def __init__(self, waves: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(waves, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, waves: Tensor) -> Tensor:
        out: Tensor = self.linear_2(silu(self.linear_1(waves)))
        return out


class ResnetBlock(nn.Module):
    """Two convolutions with a shortcut. Between them the embedding shifts the values, or scales
    and shifts them."""

    def __init__(self, config: UNetConfig, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.scale_shift = config.resnet_time_scale_shift == "scale_shift"
        embedding = 4 * config.block_out_channels[0]
        groups, eps = config.norm_num_groups, config.norm_eps
        self.norm1 = nn.GroupNorm(groups, channels_in, eps)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, channels_out * (1 + self.scale_shift))
        self.norm2 = nn.GroupNorm(groups, channels_out, eps)
        self.dropout = Dropout(config.dropout)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.conv_shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        e = self.time_emb_proj(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + e)
        h = self.conv2(self.dropout(silu(h)))
        if hasattr(self, "conv_shortcut"):
            x = self.conv_shortcut(x)
        return x + h  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Self-attention among all pixels, with a shortcut."""

    def __init__(self, config: UNetConfig, channels: int, normalised: bool = True) -> None:
        super().__init__()
        self.heads = channels // (config.attention_head_dim or channels)
        if normalised:
            self.group_norm = nn.GroupNorm(config.norm_num_groups, channels, config.norm_eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        normed = self.group_norm(x) if hasattr(self, "group_norm") else x
        pixels = normed.flatten(2).transpose(1, 2)  # (B, H W, C)
        q, k, v = (
            to(pixels).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, H W, C / heads)
            for to in (self.to_q, self.to_k, self.to_v)
        )
        seen = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = self.to_out[0](seen).transpose(1, 2).unflatten(2, (height, width))
        return x + out


class Downsample(nn.Module):
    """Half the height and width, by a convolution of stride 2."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.pads_right_and_bottom = padding == 0
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        if self.pads_right_and_bottom:
            x = pad(x, (0, 1, 0, 1))
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Twice the height and width, by repetition and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class DownBlock(nn.Module):
    """A level on the way down. It appends its outputs to `skips`, for the way up."""

    def __init__(
        self, config: UNetConfig, channels_in: int, width: int, attention: bool, halve: bool
    ) -> None:
        super().__init__()
        layers = range(config.layers_per_block)
        self.resnets = nn.ModuleList(
            ResnetBlock(config, width if i else channels_in, width) for i in layers
        )
        if attention:
            self.attentions = nn.ModuleList(Attention(config, width) for _ in layers)
        if halve:
            self.downsamplers = nn.ModuleList([Downsample(width, config.downsample_padding)])

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, embedding)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x)
            skips.append(x)
        if hasattr(self, "downsamplers"):
            x = self.downsamplers[0](x)
            skips.append(x)
        return x


class MidBlock(nn.Module):
    """Two ResNet blocks at the lowest resolution, with attention between them."""

    def __init__(self, config: UNetConfig, width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(config, width, width) for _ in range(2))
        if config.add_attention:
            normalised = config.resnet_time_scale_shift == "default"  # as in diffusers
            self.attentions = nn.ModuleList([Attention(config, width, normalised)])

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.resnets[0](x, embedding)
        if hasattr(self, "attentions"):
            x = self.attentions[0](x)
        out: Tensor = self.resnets[1](x, embedding)
        return out


class UpBlock(nn.Module):
    """A level on the way up. `skips` lists the channels that its ResNet blocks receive from the way
    down, in order."""

    def __init__(
        self,
        config: UNetConfig,
        channels_in: int,
        skips: list[int],
        width: int,
        attention: bool,
        double: bool,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(config, (width if i else channels_in) + skip, width)
            for i, skip in enumerate(skips)
        )
        if attention:
            self.attentions = nn.ModuleList(Attention(config, width) for _ in skips)
        if double:
            self.upsamplers = nn.ModuleList([Upsample(width)])

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), embedding)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x)
        if hasattr(self, "upsamplers"):
            x = self.upsamplers[0](x)
        return x
