"""ACE's pretrained encoder, for users who bring its weights file. The project ships none of it."""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

MEAN_GREY = 0.4
STD_GREY = 0.25
"""The grey statistics that the published weights were trained with."""


class AceEncoder(nn.Module):
    """Fully convolutional network of 5.57 M weights, 512 channels at stride 8.

    Layer table (Brachmann et al., CVPR 2023, supplement): four 3x3 convolutions 1→32→64→128→256, the last three
    of stride 2; a residual block 3-1-3 of 256 channels; a residual block 3-1-3 to 512 channels with a 1x1 skip.
    Attribute names are those of the weights file.
    """

    stride = 8
    channels = 512

    def __init__(self, identifier: str = "ace-encoder") -> None:
        super().__init__()
        self.identifier = identifier
        self.conv1 = nn.Conv2d(1, 32, 3, 1, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 2, 1)
        self.conv3 = nn.Conv2d(64, 128, 3, 2, 1)
        self.conv4 = nn.Conv2d(128, 256, 3, 2, 1)
        self.res1_conv1 = nn.Conv2d(256, 256, 3, 1, 1)
        self.res1_conv2 = nn.Conv2d(256, 256, 1, 1, 0)
        self.res1_conv3 = nn.Conv2d(256, 256, 3, 1, 1)
        self.res2_conv1 = nn.Conv2d(256, 512, 3, 1, 1)
        self.res2_conv2 = nn.Conv2d(512, 512, 1, 1, 0)
        self.res2_conv3 = nn.Conv2d(512, 512, 3, 1, 1)
        self.res2_skip = nn.Conv2d(256, 512, 1, 1, 0)

    def forward(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 512 rows cols"]:
        """``images`` in [0, 1]. Heights and widths that are no multiple of 8 lose their last partial cell."""
        height, width = (side // self.stride * self.stride for side in images.shape[-2:])
        x = (images[..., :height, :width] - MEAN_GREY) / STD_GREY
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(layer(x))
        residual = F.relu(self.res1_conv1(x))
        residual = F.relu(self.res1_conv2(residual))
        x = x + F.relu(self.res1_conv3(residual))
        residual = F.relu(self.res2_conv1(x))
        residual = F.relu(self.res2_conv2(residual))
        return self.res2_skip(x) + F.relu(self.res2_conv3(residual))


def load_ace_encoder(path: Path) -> AceEncoder:
    """The encoder with the weights of ``path``, frozen.

    Reads with ``weights_only=True``; a file that holds anything but this network's tensors is refused in one
    sentence (``ValueError``).
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    encoder = AceEncoder(f"ace-encoder-{digest}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        encoder.load_state_dict(state)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--encoder {path}: not the weights of an ACE encoder ({reason}).") from error
    return encoder.eval().requires_grad_(False)
