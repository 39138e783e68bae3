"""diffusers' example of unconditional training, as a process (trainee.py).

`python train_diffusers.py ARGUMENTS` takes JSON: `images` is a folder of image files in folders by
class, `net` is a folder with a UNet2DModel's config, and `settings` is one of

    default   as the example's script with the single option --use_ema: linear betas, epsilon,
              AdamW, cosine over 100 epochs, a DataLoader that decodes files, through accelerate
    tuned     with changes for small images: they stay in memory as tensors, classes, a large
              learning rate that falls to 0 at the end of the budget, fused and foreach, bfloat16 if
              `bfloat16` is true

A `batch_size` or `learning_rate` of null is the setting's default; `flip` mirrors half of the
images. Sampling is DDPM's with the given number of steps. After a tuned run of 544 steps, a
classifier saw the right class in 99% of the digits with 50 steps of DDPM, in 78% with 50 of DDIM,
in 93% with 20 of DPM-Solver++.
"""

import math
from pathlib import Path
from typing import Any

import cpu_torchvision  # noqa: F401  makes torchvision importable with a CPU build of torch
import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    RandomHorizontalFlip,
    Resize,
    ToTensor,
)
from trainee import DEVICE, operations, serve

NUM_TRAIN_TIMESTEPS = 1000
EPOCHS = 100  # the script's default, over which its learning rate decays
WARM_UP = 500
TUNED_WARM_UP = 100


class Files(Dataset):
    """Image files and their classes, decoded at each access."""

    def __init__(self, folder: str, size: int, channels: int, flip: bool) -> None:
        self._paths = sorted(Path(folder).glob("*/*.png"))
        classes = sorted({path.parent.name for path in self._paths})
        self.labels = [classes.index(path.parent.name) for path in self._paths]
        self._mode = "L" if channels == 1 else "RGB"
        self._transform = Compose(
            [
                Resize(size, interpolation=InterpolationMode.BILINEAR),
                CenterCrop(size),
                *([RandomHorizontalFlip()] if flip else []),
                ToTensor(),
                Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with Image.open(self._paths[index]) as image:
            return {"input": self._transform(image.convert(self._mode))}


class Sampling:
    """The parts that both settings share: the net, adding noise, sampling, the check."""

    def __init__(self, net: str, batch_size: int) -> None:
        self.config = UNet2DModel.load_config(net)
        self.unet = UNet2DModel.from_config(self.config)
        self.num_parameters = sum(p.numel() for p in self.unet.parameters())
        self.images_per_step = batch_size
        size = self.config["sample_size"]
        x, t = torch.zeros(1, self.config["in_channels"], size, size), torch.zeros(1).long()
        label = t if self.config["num_class_embeds"] else None
        self.num_operations = operations(self.unet, x, t, label)
        self.process = DDPMScheduler(num_train_timesteps=NUM_TRAIN_TIMESTEPS)
        self.ema: EMAModel

    def noised(self, x0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        noise = torch.randn_like(x0)
        t = torch.randint(0, NUM_TRAIN_TIMESTEPS, (len(x0),), device=x0.device)
        return self.process.add_noise(x0, noise, t), noise, t

    def sample(self, labels: Tensor, num_inference_steps: int) -> Tensor:
        config, unet = self.config, UNet2DModel.from_config(self.config).to(DEVICE).eval()
        self.ema.copy_to(unet.parameters())
        class_labels = labels if config["num_class_embeds"] else None
        scheduler = DDPMScheduler.from_config(self.process.config, timestep_spacing="trailing")
        scheduler.set_timesteps(num_inference_steps)
        size = config["sample_size"]
        x = torch.randn(len(labels), config["in_channels"], size, size, device=DEVICE)
        for t in scheduler.timesteps:
            output = unet(x, t, class_labels=class_labels).sample
            x = scheduler.step(output, t, x).prev_sample
        return x / 2 + 0.5

    def check(self, weights: str, inputs: str, output: str) -> dict[str, float]:
        """Save the output of the network with these weights for `x`, `c_noise`, `labels`."""
        unet = UNet2DModel.from_pretrained(weights, use_safetensors=True, low_cpu_mem_usage=False)
        given = {name: torch.from_numpy(value) for name, value in np.load(inputs).items()}
        with torch.no_grad():
            y = unet(given["x"], given["c_noise"], class_labels=given.get("labels")).sample
        np.save(output, y.numpy())
        return {"parameters": sum(p.numel() for p in unet.parameters())}


class Example(Sampling):
    """The training of the example's script."""

    def __init__(
        self, images: str, net: str, batch_size: int, learning_rate: float, flip: bool
    ) -> None:
        super().__init__(net, batch_size)
        config = self.config
        files = Files(images, config["sample_size"], config["in_channels"], flip)
        loader = DataLoader(files, batch_size=batch_size, shuffle=True)
        optimizer = torch.optim.AdamW(
            self.unet.parameters(), learning_rate, (0.95, 0.999), 1e-8, weight_decay=1e-6
        )
        lr_schedule = get_scheduler(
            "cosine",
            optimizer,
            num_warmup_steps=WARM_UP,
            num_training_steps=len(loader) * EPOCHS,
        )
        self.ema = EMAModel(
            self.unet.parameters(),
            decay=0.9999,
            use_ema_warmup=True,
            inv_gamma=1.0,
            power=3 / 4,
            model_cls=UNet2DModel,
            model_config=self.unet.config,
        )
        self.accelerator = Accelerator()
        prepared = self.accelerator.prepare(self.unet, optimizer, loader, lr_schedule)
        self.unet, self.optimizer, self.loader, self.lr_schedule = prepared
        self.ema.to(self.accelerator.device)
        self.batches = iter(self.loader)

    def step(self, progress: float) -> float:
        x_t, noise, t = self.noised(self._next())
        with self.accelerator.accumulate(self.unet):
            loss = mse_loss(self.unet(x_t, t).sample.float(), noise)
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.unet.parameters(), 1.0)
            self.optimizer.step()
            self.lr_schedule.step()
            self.optimizer.zero_grad()
        self.ema.step(self.unet.parameters())
        return loss.detach().item()

    def _next(self) -> Tensor:
        """Return the next batch; a smaller last batch is skipped, so that all are equal."""
        batch = next(self.batches, None)
        while batch is None or len(batch["input"]) < self.images_per_step:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        return batch["input"]


class Tuned(Sampling):
    def __init__(
        self,
        images: str,
        net: str,
        batch_size: int,
        learning_rate: float,
        flip: bool,
        bfloat16: bool,
        compiled: bool,
    ) -> None:
        super().__init__(net, batch_size)
        config = self.config
        self.autocast = torch.autocast(DEVICE, torch.bfloat16, enabled=bfloat16)
        files = Files(images, config["sample_size"], config["in_channels"], flip=False)
        self.x0 = torch.stack([files[i]["input"] for i in range(len(files))]).to(DEVICE)
        self.labels = torch.tensor(files.labels, device=DEVICE)
        self.flip, self.learning_rate, self.steps = flip, learning_rate, 0
        self.unet = self.unet.to(DEVICE, memory_format=torch.channels_last)
        self.forward = torch.compile(self.unet) if compiled else self.unet
        self.optimizer = torch.optim.AdamW(
            self.unet.parameters(), learning_rate, (0.9, 0.99), weight_decay=1e-6, fused=True
        )
        self.ema = EMAModel(
            self.unet.parameters(), 0.9999, use_ema_warmup=True, power=3 / 4, foreach=True
        )

    def step(self, progress: float) -> float:
        self.steps += 1
        decay = 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * min(1, self.steps / TUNED_WARM_UP) * decay
        index = torch.randint(0, len(self.x0), (self.images_per_step,), device=DEVICE)
        x0 = self.x0[index]
        if self.flip:
            mirrored = torch.rand(len(x0), 1, 1, 1, device=DEVICE) < 0.5
            x0 = torch.where(mirrored, x0.flip(3), x0)
        x_t, noise, t = self.noised(x0.contiguous(memory_format=torch.channels_last))
        class_labels = self.labels[index] if self.config["num_class_embeds"] else None
        with self.autocast:
            y = self.forward(x_t, t, class_labels=class_labels).sample
        loss = mse_loss(y.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.unet.parameters())
        return loss.item()


def create(
    images: str,
    net: str,
    settings: str,
    flip: bool,
    bfloat16: bool = False,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    compiled: bool = False,
) -> Sampling:
    if settings == "default":
        return Example(images, net, batch_size or 16, learning_rate or 1e-4, flip)
    learning_rate, batch_size = learning_rate or 1e-3, batch_size or 128
    return Tuned(images, net, batch_size, learning_rate, flip, bfloat16, compiled)


if __name__ == "__main__":
    serve(create)
