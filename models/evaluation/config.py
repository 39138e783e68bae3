"""The settings of an evaluation (models.evaluation.evaluate)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from models.diffusion.noise import MAX_SEED
from models.fields import Invalid, check_number, check_whole
from models.nets.precision import PrecisionChoice, Ranges, ranges_of
from models.sampling.samplers import DEFAULT_SAMPLER, SAMPLER_NAMES, SamplerName

MIN_IMAGES, MAX_IMAGES = 8, 50_000
MAX_STEPS, MAX_PROBES = 1000, 64  # of a likelihood


@dataclass(frozen=True)
class EvaluationConfig:
    """The settings of an evaluation. `features` is a name of models.evaluation.features or a path
    to DINOv2's folder. `precision` is that of the network where it makes images; the likelihood is
    of the weights, and always computed in float32. `ranges` are those of int8, measured first where
    they are not known. `num_reference` bounds the real images of the
    reference; with `likelihood_images` of 0 the bits are left out."""

    num_images: int = 1000
    sampler: SamplerName = DEFAULT_SAMPLER
    num_inference_steps: int = 20
    guidance_scale: float = 1.0
    seed: int = 0
    precision: PrecisionChoice = "auto"
    ranges: Ranges = ()
    features: str = "auto"
    num_reference: int = 10_000
    likelihood_images: int = 64
    likelihood_steps: int = 20
    likelihood_probes: int = 1

    def __post_init__(self) -> None:
        check_whole("num_images", self.num_images, MIN_IMAGES, MAX_IMAGES)
        check_whole("num_inference_steps", self.num_inference_steps, 1, 1000)
        check_number("guidance_scale", self.guidance_scale, 0.0, 20.0)
        check_whole("seed", self.seed, 0, MAX_SEED)
        check_whole("num_reference", self.num_reference, MIN_IMAGES, MAX_IMAGES)
        check_whole("likelihood_images", self.likelihood_images, 0, MAX_IMAGES)
        check_whole("likelihood_steps", self.likelihood_steps, 1, MAX_STEPS)
        check_whole("likelihood_probes", self.likelihood_probes, 1, MAX_PROBES)
        if self.sampler not in SAMPLER_NAMES:
            raise Invalid("sampler", self.sampler, f"it must be one of {SAMPLER_NAMES}")
        if self.precision not in get_args(PrecisionChoice):
            choices = get_args(PrecisionChoice)
            raise Invalid("precision", self.precision, f"it must be one of {choices}")
        if not isinstance(self.features, str) or not self.features:
            raise Invalid("features", self.features, "it must be a name or a path")

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EvaluationConfig":
        return cls(**{**values, "ranges": ranges_of(values.get("ranges", ()))})
