"""The U-Net that denoises: ResNet blocks at several resolutions, attention at some of them.

Ho et al. 2020, appendix B. Parameter names and block types are those of diffusers' UNet2DModel, so
that weights can be exchanged both ways; diffusers itself is not needed here.

    x --conv_in--> down blocks --> mid block --> up blocks --conv_out--> y
                       \\________ skip connections ________/
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad, scaled_dot_product_attention, silu

from models.nets.config import MAX_PERIOD, UNetConfig
from models.nets.dropout import Dropout

# Up to here torch's kernel for CPUs takes longer than plain products, four times as long for 16.
FEW_TOKENS = 64


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
            down = DownBlock(config, level, skips[-1], width, halve=not last)
            self.down_blocks.append(down)
            skips += [width] * (config.layers_per_block + (not last))
        self.mid_block = MidBlock(config, widths[-1])
        self.up_blocks = nn.ModuleList()
        channels = widths[-1]
        for level, width in enumerate(reversed(widths)):
            last = level == len(widths) - 1
            joined = [skips.pop() for _ in range(config.layers_per_block + 1)]
            up = UpBlock(config, level, channels, joined, width, double=not last)
            self.up_blocks.append(up)
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
    and shifts them. `resample` halves or doubles the image before the first (Dhariwal and Nichol
    2021)."""

    def __init__(
        self,
        config: UNetConfig,
        channels_in: int,
        channels_out: int,
        resample: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.resample = resample
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
        h = silu(self.norm1(x))
        if self.resample is not None:
            x, h = self.resample(x), self.resample(h)
        h = self.conv1(h)
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

    def __init__(self, config: UNetConfig, channels: int, groups: int | None) -> None:
        super().__init__()
        self.heads = channels // (config.attention_head_dim or channels)
        if groups:
            self.group_norm = nn.GroupNorm(groups, channels, config.norm_eps)
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
        seen = attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = self.to_out[0](seen).transpose(1, 2).unflatten(2, (height, width))
        return x + out


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q kT / sqrt(width)) v for q, k and v (B, heads, tokens, width)."""
    if q.shape[2] > FEW_TOKENS or q.device.type != "cpu":
        return scaled_dot_product_attention(q, k, v)
    weights = torch.softmax(q @ k.mT / math.sqrt(q.shape[3]), dim=-1)
    return weights.to(v.dtype) @ v


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
        out: Tensor = self.conv(doubled(x))
        return out


def halved(x: Tensor) -> Tensor:
    return avg_pool2d(x, 2)


def doubled(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2.0, mode="nearest")


class DownBlock(nn.Module):
    """A level on the way down. It appends its outputs to `skips`, for the way up."""

    def __init__(
        self, config: UNetConfig, level: int, channels_in: int, width: int, halve: bool
    ) -> None:
        super().__init__()
        layers = range(config.layers_per_block)
        self.resnets = nn.ModuleList(
            ResnetBlock(config, width if i else channels_in, width) for i in layers
        )
        if config.down_block_types[level] == "AttnDownBlock2D":
            groups = config.norm_num_groups
            self.attentions = nn.ModuleList(Attention(config, width, groups) for _ in layers)
        self.in_resnet = config.halves_in_resnet(level)
        if halve and self.in_resnet:
            self.downsamplers = nn.ModuleList([ResnetBlock(config, width, width, halved)])
        elif halve:
            self.downsamplers = nn.ModuleList([Downsample(width, config.downsample_padding)])

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, embedding)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x)
            skips.append(x)
        if hasattr(self, "downsamplers"):
            halve = self.downsamplers[0]
            x = halve(x, embedding) if self.in_resnet else halve(x)
            skips.append(x)
        return x


class MidBlock(nn.Module):
    """Two ResNet blocks at the lowest resolution, with attention between them."""

    def __init__(self, config: UNetConfig, width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(config, width, width) for _ in range(2))
        if config.add_attention:
            attention = Attention(config, width, config.mid_attention_groups)
            self.attentions = nn.ModuleList([attention])

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
        level: int,
        channels_in: int,
        skips: list[int],
        width: int,
        double: bool,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(config, (width if i else channels_in) + skip, width)
            for i, skip in enumerate(skips)
        )
        if config.up_block_types[level] == "AttnUpBlock2D":
            groups = config.norm_num_groups
            self.attentions = nn.ModuleList(Attention(config, width, groups) for _ in skips)
        self.in_resnet = config.doubles_in_resnet(level)
        if double and self.in_resnet:
            self.upsamplers = nn.ModuleList([ResnetBlock(config, width, width, doubled)])
        elif double:
            self.upsamplers = nn.ModuleList([Upsample(width)])

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), embedding)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x)
        if hasattr(self, "upsamplers"):
            double = self.upsamplers[0]
            x = double(x, embedding) if self.in_resnet else double(x)
        return x
