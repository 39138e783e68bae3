"""The U-Net as a graph of ONNX operators: plain data, for runtimes other than torch.

It is the network of models.nets.unet, with the same parameters under the same names. Only the sizes
of the images are fixed; the number of images in a call is not.

    x (B, C_in, H, W), c_noise (B,), label (B,) int64 if there are classes  -->  y (B, C_out, H, W)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.nets.config import MAX_PERIOD, UNetConfig

Size = tuple[int, int]  # height, width
Constant = NDArray[np.float32] | NDArray[np.int64]


@dataclass(frozen=True)
class Node:
    """An operator of ONNX (opset 21), with the names of the values that it reads and makes."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object]


@dataclass
class Graph:
    """Operators in an order in which they can run.

    `inputs` has the type and the shape, without the number of images, of each input; `parameters`
    the shape of each weight, by its name in the model's file. The inputs
    and the output are named x, c_noise, label and y. `flops` are the floating-point operations of
    convolutions and matrix products for one image, two for each product that is added.
    """

    inputs: dict[str, tuple[type[np.generic], tuple[int, ...]]]
    nodes: list[Node] = field(default_factory=list)
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    flops: int = 0

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.parameters.values())


def unet_graph(config: UNetConfig, image_size: Size) -> Graph:
    """Return the graph for images of (height, width), which the net's halvings must divide."""
    return _Builder(config).build(image_size)


def inner_convolutions(graph: Graph) -> list[str]:
    """Return the names of all convolutions but the first, whose input is noise at one end of the
    schedule and an image at the other, and the last, whose error goes into the image."""
    weights = [node.inputs[1] for node in graph.nodes if node.op == "Conv"]
    return [weight.removesuffix(".weight") for weight in weights[1:-1]]


class _Builder:
    def __init__(self, config: UNetConfig) -> None:
        self.config = config

    def build(self, size: Size) -> Graph:
        config, widths = self.config, self.config.block_out_channels
        self.graph = Graph({"x": (np.float32, (config.in_channels, *size))})
        embedding, groups = self.embedding(), config.norm_num_groups
        x = self.conv("x", "conv_in", config.in_channels, widths[0], size)
        skips = [(x, widths[0])]
        channels = widths[0]
        for level, width in enumerate(widths):
            block, attends = f"down_blocks.{level}", "Attn" in config.down_block_types[level]
            for i in range(config.layers_per_block):
                x = self.resnet(x, embedding, f"{block}.resnets.{i}", channels, width, size)
                if attends:
                    x = self.attention(x, f"{block}.attentions.{i}", width, size, groups)
                skips.append((x, width))
                channels = width
            if level < len(widths) - 1:
                name = f"{block}.downsamplers.0"
                if config.halves_in_resnet(level):
                    size = (size[0] // 2, size[1] // 2)
                    x = self.resnet(x, embedding, name, width, width, size, self.halved)
                else:
                    x, size = self.downsampled(x, f"{name}.conv", width, size)
                skips.append((x, width))
        x = self.middle(x, embedding, channels, size)
        for level, width in enumerate(reversed(widths)):
            block, attends = f"up_blocks.{level}", "Attn" in config.up_block_types[level]
            for i in range(config.layers_per_block + 1):
                skip, more = skips.pop()
                x = self.op("Concat", x, skip, axis=1)
                x = self.resnet(x, embedding, f"{block}.resnets.{i}", channels + more, width, size)
                if attends:
                    x = self.attention(x, f"{block}.attentions.{i}", width, size, groups)
                channels = width
            if level < len(widths) - 1:
                name, size = f"{block}.upsamplers.0", (2 * size[0], 2 * size[1])
                if config.doubles_in_resnet(level):
                    x = self.resnet(x, embedding, name, width, width, size, self.doubled)
                else:
                    x = self.conv(self.doubled(x), f"{name}.conv", width, width, size)
        x = self.silu(self.norm(x, "conv_norm_out", channels))
        self.conv(x, "conv_out", channels, config.out_channels, size, output="y")
        return self.graph

    # Parts ------------------------------------------------------------------------------------

    def embedding(self) -> str:
        """Return the embedding of c_noise and label, (B, 4 block_out_channels[0])."""
        config = self.config
        self.graph.inputs["c_noise"] = (np.float32, ())
        half, width = config.block_out_channels[0] // 2, 4 * config.block_out_channels[0]
        exponents = -np.arange(half, dtype=np.float64) / (half - config.freq_shift)
        frequencies = self.constant((MAX_PERIOD**exponents).astype(np.float32)[None])
        phase = self.op("Mul", self.op("Unsqueeze", "c_noise", self.integers(1)), frequencies)
        pair = [self.op("Cos", phase), self.op("Sin", phase)]
        waves = self.op("Concat", *(pair if config.flip_sin_to_cos else reversed(pair)), axis=1)
        hidden = self.silu(self.linear(waves, "time_embedding.linear_1", 2 * half, width))
        embedding = self.linear(hidden, "time_embedding.linear_2", width, width)
        if config.num_class_embeds is not None:
            self.graph.inputs["label"] = (np.int64, ())
            table = self.parameter("class_embedding.weight", config.num_class_embeds, width)
            embedding = self.op("Add", embedding, self.op("Gather", table, "label", axis=0))
        return self.silu(embedding)

    def resnet(
        self,
        x: str,
        embedding: str,
        name: str,
        channels: int,
        width: int,
        size: Size,
        resample: Callable[[str], str] | None = None,
    ) -> str:
        """Apply a ResNet block whose result has `size`; `resample` is what it does to the image
        before its convolutions."""
        scales = self.config.resnet_time_scale_shift == "scale_shift"
        h = self.silu(self.norm(x, f"{name}.norm1", channels))
        if resample is not None:
            x, h = resample(x), resample(h)
        h = self.conv(h, f"{name}.conv1", channels, width, size)
        wide = 4 * self.config.block_out_channels[0]
        e = self.linear(embedding, f"{name}.time_emb_proj", wide, width * (1 + scales))
        if scales:
            scale, shift = self.unused("scale"), self.unused("shift")
            self.add("Split", (e,), (scale, shift), {"axis": 1, "num_outputs": 2})
            scale = self.op("Add", scale, self.constant(np.ones(1, np.float32)))
            h = self.op("Mul", self.norm(h, f"{name}.norm2", width), self.per_channel(scale))
            h = self.op("Add", h, self.per_channel(shift))
        else:
            h = self.norm(self.op("Add", h, self.per_channel(e)), f"{name}.norm2", width)
        h = self.conv(self.silu(h), f"{name}.conv2", width, width, size)
        if channels != width:
            x = self.conv(x, f"{name}.conv_shortcut", channels, width, size, kernel=1)
        return self.op("Add", x, h)

    def attention(self, x: str, name: str, channels: int, size: Size, groups: int | None) -> str:
        heads = channels // (self.config.attention_head_dim or channels)
        depth, pixels = channels // heads, math.prod(size)
        normed = self.norm(x, f"{name}.group_norm", channels, groups) if groups else x
        rows = self.op("Reshape", normed, self.integers(0, channels, pixels))
        rows = self.op("Transpose", rows, perm=[0, 2, 1])

        def heads_of(to: str, order: Sequence[int]) -> str:
            every = self.linear(rows, f"{name}.{to}", channels, channels, pixels)
            every = self.op("Reshape", every, self.integers(0, pixels, heads, depth))
            return self.op("Transpose", every, perm=list(order))

        q, k, v = (
            heads_of(to, order)
            for to, order in (
                ("to_q", (0, 2, 1, 3)),
                ("to_k", (0, 2, 3, 1)),
                ("to_v", (0, 2, 1, 3)),
            )
        )
        q = self.op("Mul", q, self.constant(np.array([depth**-0.5], np.float32)))
        seen = self.op("MatMul", self.op("Softmax", self.op("MatMul", q, k), axis=-1), v)
        self.graph.flops += 2 * (2 * pixels * pixels * channels)
        seen = self.op("Transpose", seen, perm=[0, 2, 1, 3])
        seen = self.op("Reshape", seen, self.integers(0, pixels, channels))
        out = self.linear(seen, f"{name}.to_out.0", channels, channels, pixels)
        out = self.op("Transpose", out, perm=[0, 2, 1])
        return self.op("Add", x, self.op("Reshape", out, self.integers(0, channels, *size)))

    def middle(self, x: str, embedding: str, width: int, size: Size) -> str:
        x = self.resnet(x, embedding, "mid_block.resnets.0", width, width, size)
        if self.config.add_attention:
            groups = self.config.mid_attention_groups
            x = self.attention(x, "mid_block.attentions.0", width, size, groups)
        return self.resnet(x, embedding, "mid_block.resnets.1", width, width, size)

    def downsampled(self, x: str, name: str, width: int, size: Size) -> tuple[str, Size]:
        padding, size = self.config.downsample_padding, (size[0] // 2, size[1] // 2)
        if padding == 0:
            x = self.op("Pad", x, self.integers(0, 0, 0, 0, 0, 0, 1, 1))  # right and bottom
        return self.conv(x, name, width, width, size, stride=2, padding=padding), size

    def halved(self, x: str) -> str:
        return self.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])

    def doubled(self, x: str) -> str:
        twice = self.constant(np.array([1, 1, 2, 2], np.float32))
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.op("Resize", x, "", twice, mode="nearest", **how)

    # Layers -----------------------------------------------------------------------------------

    def conv(
        self,
        x: str,
        name: str,
        channels: int,
        width: int,
        size: Size,
        *,
        kernel: int = 3,
        stride: int = 1,
        padding: int | None = None,
        output: str | None = None,
    ) -> str:
        """Apply a convolution whose result has `size`."""
        padding = kernel // 2 if padding is None else padding
        weight = self.parameter(f"{name}.weight", width, channels, kernel, kernel)
        bias = self.parameter(f"{name}.bias", width)
        self.graph.flops += 2 * channels * width * kernel**2 * math.prod(size)
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}
        return self.add("Conv", (x, weight, bias), (output or self.unused(),), shape)

    def linear(self, x: str, name: str, channels: int, width: int, rows: int = 0) -> str:
        """Apply a linear layer to x (B, channels), or to x (B, rows, channels)."""
        weight = self.parameter(f"{name}.weight", width, channels)
        bias = self.parameter(f"{name}.bias", width)
        self.graph.flops += 2 * channels * width * (rows or 1)
        if not rows:
            return self.op("Gemm", x, weight, bias, transB=1)
        weight = self.op("Transpose", weight, perm=[1, 0])
        return self.op("Add", self.op("MatMul", x, weight), bias)

    def norm(self, x: str, name: str, channels: int, groups: int | None = None) -> str:
        scale, shift = (self.parameter(f"{name}.{part}", channels) for part in ("weight", "bias"))
        groups, eps = groups or self.config.norm_num_groups, float(self.config.norm_eps)
        return self.op("GroupNormalization", x, scale, shift, num_groups=groups, epsilon=eps)

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def per_channel(self, values: str) -> str:
        """Return (B, C) as (B, C, 1, 1)."""
        return self.op("Unsqueeze", values, self.integers(2, 3))

    # Names ------------------------------------------------------------------------------------

    def op(self, op: str, *inputs: str, **attributes: object) -> str:
        return self.add(op, inputs, (self.unused(),), attributes)

    def add(
        self,
        op: str,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        attributes: Mapping[str, object],
    ) -> str:
        """Add an operator, and return the name of its first output."""
        self.graph.nodes.append(Node(op, inputs, outputs, attributes))
        return outputs[0]

    def unused(self, what: str = "value") -> str:
        return f"{what}.{len(self.graph.nodes)}"

    def parameter(self, name: str, *shape: int) -> str:
        self.graph.parameters[name] = shape
        return name

    def constant(self, value: Constant) -> str:
        name = f"constant.{len(self.graph.constants)}"
        self.graph.constants[name] = value
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))
