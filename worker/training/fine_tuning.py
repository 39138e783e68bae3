"""The beginning of a training from the weights of a model: to distil it, or to train it on other
images and perhaps other classes.

The step count, the average and the optimiser begin anew. A class keeps its embedding by its name. A
new class begins with the embedding of "any class", or with the mean of all where the model has no
such, or with zeros, which change nothing, where it has no classes.
"""

from dataclasses import replace

import torch
from torch import Tensor

from models.diffusion.model import DiffusionModel
from models.fields import Invalid
from models.nets.unet import UNet
from models.training.config import TrainConfig
from models.training.state import TrainState

CLASSES = "class_embedding.weight"


def begin_with(model: DiffusionModel, config: TrainConfig, device: str) -> TrainState:
    """Return the state at step 0. Raises Invalid where the config's net differs from the model's in
    more than its classes and its dropout."""
    theirs, ours = (
        replace(net, num_class_embeds=None, dropout=0.0) for net in (model.config.net, config.net)
    )
    if theirs != ours:
        raise Invalid.because("net differs from that of the model to be fine-tuned", field="net")
    weights = dict(model.net.state_dict())
    known = weights.pop(CLASSES, None)
    net = UNet(config.net)
    if config.class_names:
        width = net.class_embedding.weight.shape[1]
        if known is not None and not model.config.has_null_class:
            known = torch.cat([known, known.mean(dim=0, keepdim=True)])
        names = model.config.class_names
        weights[CLASSES] = _rows(known, names, config.class_names, width)
    net.load_state_dict(weights)
    return TrainState.assemble(config, model.config.sigma_data, net, device)


def _rows(
    known: Tensor | None, known_names: tuple[str, ...], names: tuple[str, ...], width: int
) -> Tensor:
    """Return the embeddings (K + 1, width): one for each class, and the last one for any."""
    if known is None:
        return torch.zeros(len(names) + 1, width)
    place = {name: i for i, name in enumerate(known_names)}
    any_class = len(known_names)
    return known[[place.get(name, any_class) for name in names] + [any_class]].clone()
