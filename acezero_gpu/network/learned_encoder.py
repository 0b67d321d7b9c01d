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

FORMAT = "acezero-encoder-2"
BLOCK = 4
"""Side in pixels of the blocks that the network takes in; normalisation is constant in each."""
LOCAL_BLOCKS = 9
"""Side of the neighbourhood that local contrast is measured in, in blocks."""


@dataclass(frozen=True, slots=True)
class LearnedEncoderConfig:
    """Size of the network; kept in the weights file."""

    channels: int = 128
    """Length of a feature."""
    width: int = 64
    """Channels at stride 8; half of it in the stem, half of it more at every coarser level."""
    blocks: int = 1
    """Convolutions of a level before the coarser one is added, and as many after."""
    coarser_levels: int = 3
    """Levels at strides 16, 32, …; each about doubles the receptive field."""
    scales: int = 1
    """1: of the image; 2: also of the image at half its size, by the same weights, behind the first ones. Trained at
    one scale, they are used at two."""


class _ConvBlock(nn.Sequential):
    """3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )

    def fused(self) -> nn.Sequential:
        """The same function in evaluation, with one layer less."""
        convolution, norm, relu = self
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return nn.Sequential(fuse_conv_bn_eval(convolution, norm), relu)


class _Level(nn.Module):
    """Convolutions at one stride, with what the coarser levels see added half-way."""

    def __init__(self, width: int, step: int, blocks: int, coarser_levels: int) -> None:
        super().__init__()
        self.before = nn.Sequential(*(_ConvBlock(width, width) for _ in range(blocks)))
        self.coarser = None
        if coarser_levels:
            back = nn.Conv2d(width + step, width, 1)
            # A new level changes nothing at first: training may start from a network with fewer.
            for parameter in back.parameters():
                nn.init.zeros_(parameter)
            self.coarser = nn.Sequential(
                _ConvBlock(width, width + step, 2),
                _Level(width + step, step, blocks, coarser_levels - 1),
                back,
            )
        self.after = nn.Sequential(*(_ConvBlock(width, width) for _ in range(blocks)))

    def forward(self, x: Float[Tensor, "b c rows cols"]) -> Float[Tensor, "b c rows cols"]:
        x = self.before(x)
        if self.coarser is not None:
            rows, columns = x.shape[-2:]
            # Twice as large whatever the size of the image, so that features move along with its content.
            around = F.interpolate(self.coarser(x), scale_factor=2, mode="bilinear", align_corners=False)
            x = x + around[..., :rows, :columns]
        return self.after(x)


class LearnedEncoder(nn.Module):
    """Grey image in, one feature of unit mean square per 8x8 cell out.

    The input is normalised by the mean and deviation of its neighbourhood, so that brightness and contrast, also
    where they change across the image, leave the features alone. Convolutions at stride 8 keep the position, those
    at coarser strides see far enough to tell repeated texture apart; both are added.
    """

    stride = 8

    def __init__(self, config: LearnedEncoderConfig, identifier: str = "learned") -> None:
        super().__init__()
        if config.scales not in (1, 2):
            raise ValueError(f"scales must be 1 or 2, not {config.scales}")
        self.config, self.identifier = config, identifier
        self.channels = config.channels * config.scales
        width = config.width
        self.stem = nn.Sequential(_ConvBlock(BLOCK**2, width // 2), _ConvBlock(width // 2, width, 2))
        self.pyramid = _Level(width, width // 2, config.blocks, config.coarser_levels)
        self.output = nn.Conv2d(width, config.channels, 1)

    def forward(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c rows cols"]:
        """``images`` in [0, 1]. Sides that are no multiple of 8 lose their last partial cell."""
        features = self._at_one_scale(images)
        if self.config.scales == 1:
            return features
        rows, columns = features.shape[-2:]
        # Whole cells at half the size, and at least one.
        missing = (-rows % 2 * self.stride, -columns % 2 * self.stride)
        whole = images[..., : rows * self.stride, : columns * self.stride]
        whole = F.pad(whole, (0, missing[1], 0, missing[0]), mode="replicate")
        # At exactly half the size, this is the mean of 2x2 pixels, in a fifth of the time of a pooling.
        halved = F.interpolate(whole, scale_factor=0.5, mode="bilinear", align_corners=False)
        half = self._at_one_scale(halved)
        half = F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False)
        half = self._unit_mean_square(half[..., :rows, :columns])
        return torch.cat([features, half], dim=1)

    def _at_one_scale(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c rows cols"]:
        height, width = (side // self.stride * self.stride for side in images.shape[-2:])
        # Both normalisations in float32: sums of many squares do not fit half precision.
        blocks = locally_normalised(images[..., :height, :width].float())
        return self._unit_mean_square(self.output(self.pyramid(self.stem(blocks.to(images.dtype)))))

    def _unit_mean_square(self, features: Float[Tensor, "b c rows cols"]) -> Float[Tensor, "b c rows cols"]:
        unit = F.normalize(features.float(), dim=1).to(features.dtype)
        return unit * self.config.channels**0.5

    def ready(self) -> "LearnedEncoder":
        """Frozen, with batch normalisation folded into the convolutions and in the faster memory format."""
        self.eval().requires_grad_(False)
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, _ConvBlock):
                    setattr(module, name, child.fused())
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def locally_normalised(images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 16 rows cols"]:
    """Blocks of grey values, less their neighbourhood's mean, over its deviation; flat ones are not blown up."""
    blocks = F.pixel_unshuffle(images, BLOCK).contiguous(memory_format=torch.channels_last)
    moments = torch.stack([blocks.mean(1), blocks.square().mean(1)], dim=1)
    around = F.avg_pool2d(moments, LOCAL_BLOCKS, 1, LOCAL_BLOCKS // 2, count_include_pad=False)
    mean, square = around.split(1, dim=1)
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    return (blocks - mean) / (deviation + 0.02)


def encoder_bytes(encoder: LearnedEncoder) -> bytes:
    """A safetensors file: weights in half precision and the size of the network."""
    state = {key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()}
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    meta = {"format": FORMAT, "config": asdict(encoder.config)}
    return save(state, metadata={"encoder": json.dumps(meta)})


def load_learned_encoder(path: Path) -> LearnedEncoder:
    """The encoder of a weights file, frozen. ``ValueError`` with a sentence if it is none."""
    return read_learned_encoder(path, "--encoder").ready()


def read_learned_encoder(path: Path, flag: str) -> LearnedEncoder:
    """The encoder of a weights file as it was trained; ``flag`` is named in the sentence of the ``ValueError``."""
    try:
        meta, state = read_tensors(path, "encoder")
    except Exception as error:
        raise ValueError(f"{flag} {path}: not a readable weights file ({_first_line(error)}).") from error
    if meta.get("format") != FORMAT:
        raise ValueError(f"{flag} {path}: not an encoder of this program (format {meta.get('format')!r}).")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    try:
        encoder = LearnedEncoder(LearnedEncoderConfig(**meta["config"]), f"learned-{digest}")
        encoder.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{flag} {path}: the weights do not fit the network ({_first_line(error)})."
        ) from error
    return encoder


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
