"""The project's own encoder: a small convolutional network, trained by ``acezero train-encoder``."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from acezero_gpu.network.tensor_file import read_tensors

FORMAT = "acezero-encoder-1"
LOCAL_CELLS = 9
"""Side of the neighbourhood that local contrast is measured in, in cells of 4 pixels."""


@dataclass(frozen=True, slots=True)
class LearnedEncoderConfig:
    """Size of the network; kept in the weights file."""

    channels: int = 128
    """Length of a feature."""
    width: int = 64
    """Channels at stride 8; a quarter of it in the stem, twice as many at stride 16."""
    fine_blocks: int = 2
    """Convolutions at stride 8 before the coarse branch is added, and as many after."""
    coarse_blocks: int = 3
    """Convolutions at stride 16; each widens the receptive field by 32 pixels. 0: no coarse branch."""


class _ConvBlock(nn.Sequential):
    """3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )

    def fused(self) -> nn.Sequential:
        """The same function in evaluation, with one layer less."""
        convolution, norm, relu = self
        return nn.Sequential(fuse_conv_bn_eval(convolution, norm), relu)


class LearnedEncoder(nn.Module):
    """Grey image in, one feature of unit mean square per 8x8 cell out.

    The input is normalised by the mean and deviation of its neighbourhood, so that brightness and contrast, also
    where they change across the image, leave the features alone. A fine branch at stride 8 keeps the position, a
    coarse one at stride 16 sees far enough to tell repeated texture apart; both are added.
    """

    stride = 8

    def __init__(self, config: LearnedEncoderConfig, identifier: str = "learned") -> None:
        super().__init__()
        self.config, self.channels, self.identifier = config, config.channels, identifier
        width = config.width
        self.stem = nn.Sequential(
            _ConvBlock(1, width // 4, 2),
            _ConvBlock(width // 4, width // 2, 2),
            _ConvBlock(width // 2, width, 2),
        )
        self.fine = nn.Sequential(*(_ConvBlock(width, width) for _ in range(config.fine_blocks)))
        coarse: list[nn.Module] = []
        if config.coarse_blocks:
            coarse.append(_ConvBlock(width, 2 * width, 2))
            coarse += [_ConvBlock(2 * width, 2 * width) for _ in range(config.coarse_blocks)]
            coarse.append(nn.Conv2d(2 * width, width, 1))
        self.coarse = nn.Sequential(*coarse)
        self.fused_blocks = nn.Sequential(*(_ConvBlock(width, width) for _ in range(config.fine_blocks)))
        self.output = nn.Conv2d(width, config.channels, 1)

    def forward(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c rows cols"]:
        """``images`` in [0, 1]. Sides that are no multiple of 8 lose their last partial cell."""
        height, width = (side // self.stride * self.stride for side in images.shape[-2:])
        x = self.stem(locally_normalised(images[..., :height, :width]))
        fine = self.fine(x)
        if self.config.coarse_blocks:
            coarse = self.coarse(x)
            fine = fine + F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        features = self.output(self.fused_blocks(fine))
        # In float32: the sum of many squares does not fit half precision.
        return F.normalize(features.float(), dim=1).to(features.dtype) * self.channels**0.5

    def ready(self) -> "LearnedEncoder":
        """Frozen, with batch normalisation folded into the convolutions."""
        self.eval().requires_grad_(False)
        for name in ("stem", "fine", "coarse", "fused_blocks"):
            layers = [
                layer.fused() if isinstance(layer, _ConvBlock) else layer for layer in getattr(self, name)
            ]
            setattr(self, name, nn.Sequential(*layers))
        return self


def locally_normalised(images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Grey values less their neighbourhood's mean, over its deviation; flat neighbourhoods are not blown up."""
    coarse = F.avg_pool2d(torch.cat([images, images.square()], dim=1), 4, ceil_mode=True)
    pad = LOCAL_CELLS // 2
    around = F.avg_pool2d(coarse, LOCAL_CELLS, 1, pad, count_include_pad=False)
    mean, square = F.interpolate(around, size=images.shape[-2:], mode="bilinear", align_corners=False).split(
        1, 1
    )
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    return (images - mean) / (deviation + 0.02)


def encoder_bytes(encoder: LearnedEncoder) -> bytes:
    """A safetensors file: weights in half precision and the size of the network."""
    state = {key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()}
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    meta = {"format": FORMAT, "config": asdict(encoder.config)}
    return save(state, metadata={"encoder": json.dumps(meta)})


def load_learned_encoder(path: Path) -> LearnedEncoder:
    """The encoder of a weights file, frozen. ``ValueError`` with a sentence if it is none."""
    try:
        meta, state = read_tensors(path, "encoder")
    except Exception as error:
        raise ValueError(f"--encoder {path}: not a readable weights file ({_first_line(error)}).") from error
    if meta.get("format") != FORMAT:
        raise ValueError(f"--encoder {path}: not an encoder of this program (format {meta.get('format')!r}).")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    try:
        encoder = LearnedEncoder(LearnedEncoderConfig(**meta["config"]), f"learned-{digest}")
        encoder.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"--encoder {path}: the weights do not fit the network ({_first_line(error)})."
        ) from error
    return encoder.ready()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
