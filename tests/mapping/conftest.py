"""The world of the tests of mapping rounds."""

import pytest
import torch
from reference.analytic_world import World, make_world


@pytest.fixture(scope="module")
def worlds() -> World:
    return make_world()


@pytest.fixture
def world(worlds: World, device: torch.device) -> World:
    return worlds.to(device)
