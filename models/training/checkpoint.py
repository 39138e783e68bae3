"""A training run on disk: enough to continue it as if it had never stopped.

state.json                 config, step, seconds, sigma_data
weights.safetensors        the network
ema.safetensors            its average
optimizer.safetensors      Adam's moments, by parameter name
extras.safetensors         the auxiliary modules learned beside the network, if there are any
"""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from host.folders import staged_folder
from models.nets.unet import UNet
from models.training.checkpoint_files import AVERAGE, STATE
from models.training.config import TrainConfig
from models.training.state import TrainState


def save_checkpoint(state: TrainState, folder: Path) -> None:
    """Write to a folder that must not exist yet; it appears whole or not at all."""
    with staged_folder(folder) as part:
        save_file(_tensors(state.model.net), part / "weights.safetensors")
        save_file(_tensors(state.ema), part / AVERAGE)
        moments = {name: tensor.contiguous() for name, tensor in _moments(state).items()}
        save_file(moments, part / "optimizer.safetensors")
        if len(state.auxiliary):
            save_file(_tensors(state.auxiliary), part / "extras.safetensors")
        facts = {
            "config": state.config.to_dict(),
            "step": state.step,
            "seconds": state.elapsed(),
            "sigma_data": state.model.config.sigma_data,
        }
        (part / STATE).write_text(json.dumps(facts, indent=2))


def load_checkpoint(folder: Path, device: str = "cpu") -> TrainState:
    """Return the state that was saved.

    Continuing from it gives weights bit-identical to those of a run that was never stopped, on a
    CPU with a budget in steps (a budget in minutes depends on the clock).
    """
    facts = json.loads((folder / STATE).read_text())
    config = TrainConfig.from_dict(facts["config"])
    state = TrainState.assemble(config, facts["sigma_data"], UNet(config.net), device)
    state.model.net.load_state_dict(load_file(folder / "weights.safetensors", device))
    state.ema.load_state_dict(load_file(folder / AVERAGE, device))
    if len(state.auxiliary):
        state.auxiliary.load_state_dict(load_file(folder / "extras.safetensors", device))
    state.step, state.seconds = facts["step"], facts["seconds"]
    if state.step:
        _restore_moments(state, load_file(folder / "optimizer.safetensors", device))
    return state


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in module.state_dict().items()}


def _moments(state: TrainState) -> dict[str, Tensor]:
    """Return Adam's moments as they are, by the names that are stored."""
    stored = {"exp_avg": state.optimizer.means, "exp_avg_sq": state.optimizer.squares}
    return {
        f"{moment}/{name}": tensor
        for moment, tensors in stored.items()
        for name, tensor in zip(state.parameters(), tensors, strict=True)
    }


def _restore_moments(state: TrainState, tensors: dict[str, Tensor]) -> None:
    for name, moment in _moments(state).items():
        moment.copy_(tensors[name])
    for steps in state.optimizer.steps:
        steps.fill_(state.step)
