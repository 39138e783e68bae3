"""The shape of the U-Net, with the names that diffusers gives its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Interval, Len
from typing_extensions import Doc

from models.fields import Example, Invalid, Label, NotOffered, check_fields

DownBlockType = Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]
UpBlockType = Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]
ResampleType = Literal["conv", "resnet"]

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
            "Each must be a multiple of norm_num_groups, and where there is attention of "
            "attention_head_dim."
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
            "attention at the lowest where left out. `ResnetDownsampleBlock2D` is a `DownBlock2D` "
            "that halves in a ResNet block, as ADM's nets do"
        ),
        Label("Blocks on the way down"),
        Example(["DownBlock2D", "AttnDownBlock2D"]),
    ] = ("DownBlock2D", "AttnDownBlock2D")
    up_block_types: Annotated[
        tuple[UpBlockType, ...],
        Doc(
            "the same on the way back, from the lowest resolution: `UpBlock2D`, `AttnUpBlock2D` or "
            "`ResnetUpsampleBlock2D`"
        ),
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
    downsample_type: Annotated[
        ResampleType,
        Doc("how an `AttnDownBlock2D` halves: by a convolution or in a ResNet block"),
        _OF_DIFFUSERS,
    ] = "conv"
    upsample_type: Annotated[
        ResampleType,
        Doc("how an `AttnUpBlock2D` doubles: by a convolution or in a ResNet block"),
        _OF_DIFFUSERS,
    ] = "conv"
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
        Doc(
            'K + 1 for K classes, the last embedding being "no class"; K where each is a class; '
            "None for an unconditional net"
        ),
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
    attn_norm_num_groups: Annotated[
        int | None,
        Interval(ge=1, le=MAX_CHANNELS),
        Doc(
            "groups of the normalisation before the attention at the lowest resolution; where left "
            "out norm_num_groups, or with scale_shift none"
        ),
        _OF_DIFFUSERS,
    ] = None

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
        for channels in self._attention_widths():
            if self.attention_head_dim and channels % self.attention_head_dim:
                raise Invalid(
                    "attention_head_dim",
                    self.attention_head_dim,
                    f"it must divide block_out_channels where there is attention, {channels}",
                )
        if self.attn_norm_num_groups and self.block_out_channels[-1] % self.attn_norm_num_groups:
            raise Invalid(
                "attn_norm_num_groups",
                self.attn_norm_num_groups,
                f"it must divide the last of block_out_channels, {self.block_out_channels[-1]}",
            )
        if self.block_out_channels[0] % 2:
            raise Invalid.because(
                f"block_out_channels begins with {self.block_out_channels[0]}; that must be even, "
                "for a sine and a cosine of each wave of the time embedding",
                field="block_out_channels",
            )

    def _attention_widths(self) -> list[int]:
        """Return the channels of the levels with attention."""
        widths = self.block_out_channels
        down = zip(widths, self.down_block_types, strict=True)
        up = zip(reversed(widths), self.up_block_types, strict=True)
        found = [width for width, kind in (*down, *up) if kind.startswith("Attn")]
        return [*found, widths[-1]] if self.add_attention else found

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

    @property
    def mid_attention_groups(self) -> int | None:
        """Groups of the normalisation before the attention of the mid block; None for none."""
        default = self.norm_num_groups if self.resnet_time_scale_shift == "default" else None
        return self.attn_norm_num_groups or default

    def halves_in_resnet(self, level: int) -> bool:
        """Return whether a level on the way down halves in a ResNet block."""
        kind = self.down_block_types[level]
        is_said = kind == "AttnDownBlock2D" and self.downsample_type == "resnet"
        return kind == "ResnetDownsampleBlock2D" or is_said

    def doubles_in_resnet(self, level: int) -> bool:
        """Return the same of the way up, where level 0 is the lowest."""
        kind = self.up_block_types[level]
        is_said = kind == "AttnUpBlock2D" and self.upsample_type == "resnet"
        return kind == "ResnetUpsampleBlock2D" or is_said

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
                    f"image_size is [{height}, {width}]; each side must be a multiple of "
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
