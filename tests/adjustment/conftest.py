"""A problem to start from."""

import pytest
import torch
from adjustment_scenes import disturbed, make_scene

from acezero_gpu.adjustment import BundleProblem


@pytest.fixture
def start(generator: torch.Generator) -> BundleProblem:
    return disturbed(make_scene(generator, noise_px=0.5), generator)
