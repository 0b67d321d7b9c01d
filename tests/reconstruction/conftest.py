"""Nine views of the synthetic room, for tests of joint adjustment and growth."""

import pytest
import torch
from reference.rendered_room import Room, walked_room

from acezero_gpu.reconstruction import ImageBank
from acezero_gpu.reconstruction.matching import MatchStore


@pytest.fixture(scope="module")
def room() -> Room:
    return walked_room().subset(list(range(9)))


@pytest.fixture(scope="module")
def banks(room: Room) -> dict[str, tuple[ImageBank, MatchStore]]:
    return {}


@pytest.fixture
def bank(room: Room, banks: dict, device: torch.device) -> tuple[ImageBank, MatchStore]:
    """Keypoints and matches are found once for all tests."""
    if device.type not in banks:
        bank = room.bank(device)
        banks[device.type] = (bank, MatchStore(bank))
    return banks[device.type]
