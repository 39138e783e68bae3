"""Two files of a checkpoint (models.training.checkpoint), which make a model by themselves. Knows
nothing of torch."""

import json

from models.diffusion.config import ModelConfig
from models.fields import Invalid
from models.training.config import TrainConfig

STATE = "state.json"
AVERAGE = "ema.safetensors"  # the weights that are sampled, named as those of a model's folder


def model_config_of(state: bytes) -> ModelConfig:
    """Return the config of the model, from the content of STATE. Raises Invalid."""
    try:
        facts = json.loads(state)
        return TrainConfig.from_dict(facts["config"]).model_config(facts["sigma_data"])
    except Invalid:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid.because(f"the checkpoint's config is malformed: {error}") from None
