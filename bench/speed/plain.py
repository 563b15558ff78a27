"""Training and scoring as tutorials and the paper's release write them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from baselines.layers import ConvTranspose2d
from baselines.state import State
from baselines.vae import Vae
from bench.run import Run
from bench.training.train import build


class Pictures(Dataset[Tensor]):
    """8-bit images (N, C, H, W), or videos (N, T, C, H, W), as items of float32 in [0, 1].

    Each image or frame is made a PIL image and transformed on access.
    """

    def __init__(self, items: Tensor) -> None:
        self.items = items.cpu()
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        item = self.items[index]
        # PIL wants the channels last, and none of a grey image.
        frames = item.unsqueeze(0).flatten(0, -4).movedim(-3, -1).squeeze(-1).numpy()
        pictures = [self.transform(Image.fromarray(frame)) for frame in frames]
        return torch.stack(pictures).view(item.shape)


@dataclass
class Plain:
    """The loop of tutorials and of the paper's release: float32, contiguous, a loss read a step.

    Its network has torch's layers where ours has faster ones.
    """

    vae: Vae
    state: State
    device: str
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.vae.to(self.device)
        self.state = {name: value.to(self.device) for name, value in self.state.items()}
        self.optimizer = torch.optim.Adam(self.vae.parameters(), lr=1e-3)

    @classmethod
    def of(cls, run: Run, items: Tensor, device: str) -> "Plain":
        """That of a run's untrained VAE, for such items as those (N, ..., C, H, W)."""
        vae = build(run, items.shape[-3], items.shape[-1])
        _use_torchs_layers(vae)
        return cls(vae, vae.initial_state(), device)

    def step(self, items: Tensor, noise: Tensor) -> None:
        terms, self.state = self.vae(items, noise, self.state, torch.float32)
        self.optimizer.zero_grad()
        terms.loss.backward()
        self.optimizer.step()
        self.losses.append(terms.loss.item())

    def epoch(self, items: Tensor, batch: int) -> Iterator[None]:
        """Yields after each step over 8-bit items."""
        for part in DataLoader(Pictures(items), batch_size=batch, shuffle=True):
            self.step(part.to(self.device), self._noise(len(part)))
            yield

    def elbo(self, images: Tensor, batch: int) -> float:
        """The mean ELBO of 8-bit images (N, C, H, W), nats, one posterior draw each."""
        total, model = 0.0, self.vae.model
        with torch.no_grad():
            for part in DataLoader(Pictures(images), batch_size=batch):
                found = part.to(self.device)
                context, _ = model.encode(found, self.state, training=False)
                draw = model.draw(context, self._noise(len(part)), self.state, training=False)
                law = self.vae.decoder(draw.output, self.state)
                total += (law.log_prob(found).sum() - draw.rate.sum()).item()
        return total / len(images)

    def samples(self, count: int, batch: int) -> Tensor:
        """Decoder means of draws from the prior, (count, C, H, W), 8 bits, on the CPU."""
        made = []
        with torch.no_grad():
            for first in range(0, count, batch):
                noise = self._noise(min(batch, count - first))
                output = self.vae.model.generate(noise, self.state)
                made.append(self.vae.decoder(output, self.state).mean)
        return torch.cat(made).clamp(0, 1).mul(255).round().byte().cpu()

    def _noise(self, count: int) -> Tensor:
        return torch.randn(count, self.vae.model.noise_size, device=self.device)


def _use_torchs_layers(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, ours in parent.named_children():
            if isinstance(ours, ConvTranspose2d):
                peer = nn.ConvTranspose2d(
                    ours.in_channels,
                    ours.out_channels,
                    cast(tuple[int, int], ours.kernel_size),
                    cast(tuple[int, int], ours.stride),
                    cast(tuple[int, int], ours.padding),
                    bias=ours.bias is not None,
                )
                peer.load_state_dict(ours.state_dict())
                setattr(parent, name, peer)
