"""A checkpoint of a training as the folder of a model, which the engine loads."""

from pathlib import Path

from models.pipeline.folder import WEIGHTS, write_configs
from models.training.checkpoint_files import AVERAGE, STATE, model_config_of


def make_model_folder(folder: Path) -> None:
    """Rearrange a folder with the state and the average of a checkpoint; leave any other as it is.

    Raises Invalid.
    """
    if not (folder / STATE).exists():
        return
    write_configs(folder, model_config_of((folder / STATE).read_bytes()), {})
    (folder / AVERAGE).rename(folder / "unet" / WEIGHTS)
