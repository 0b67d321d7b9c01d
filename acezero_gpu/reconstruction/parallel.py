"""Patches, mapping and registration on all processes of a run: rank 0 runs the loop, the others take part in these.

Whatever decides what comes next is computed by rank 0 alone: seeds, adjustments, when to stop. So nothing can drift
apart, also where sums on a GPU end in other bits each time; and the loop is the same with one process and with many.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.data import ImageSet, LoadedImages
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.mapping import FrameTable, MappingResult, TrainingConfig, TrainingProgress, train_map
from acezero_gpu.network import Head, SceneMap, head_from_state, make_encoder
from acezero_gpu.reconstruction.image_bank import BankConfig, ImageBank
from acezero_gpu.registration import Registration, RegistrationConfig, register_images
from acezero_gpu.runtime.distributed import Ranks

RECORDS = (BankConfig, FrameTable, TrainingConfig, PinholeCamera, RegistrationConfig)
"""What the calls below consist of, beside tensors and plain values."""


def share_bank(bank: ImageBank, encoder: str) -> None:
    """Gives the other ranks the images of rank 0; ``encoder`` is the name or file that its encoder was made from."""
    pixels, image_set = bank.images.pixels, bank.images.image_set
    size = (image_set.width, image_set.height)
    bank.ranks.call("bank", tuple(pixels.shape), size, encoder, bank.config, bank.seed)
    bank.ranks.broadcast([pixels])


def fill_buffer(bank: ImageBank, frames: Int[Tensor, " f"]) -> None:
    """Makes the training patches of these images on all ranks."""
    bank.ranks.call("fill", frames)
    bank.fill_buffer(frames)


def train(
    bank: ImageBank,
    table: FrameTable,
    config: TrainingConfig,
    *,
    generator: torch.Generator,
    heads: int = 1,
    initial_head: Head | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> MappingResult:
    """``train_map`` on the bank's patches, which must have been made, by all ranks."""
    if bank.ranks.count > 1:
        head = None if initial_head is None else initial_head.state_dict()
        bank.ranks.call("train", table, config, generator.get_state(), heads, head)
    return train_map(
        bank.buffer,
        table,
        config,
        generator=generator,
        heads=heads,
        initial_head=initial_head,
        progress=progress,
        ranks=bank.ranks,
    )


def register(
    bank: ImageBank,
    scene_map: SceneMap,
    camera: PinholeCamera,
    config: RegistrationConfig,
    *,
    radial: Float[Tensor, " 2"],
    generator: torch.Generator,
) -> Registration:
    """``register_images`` for all images of the bank, dealt out to all ranks."""
    if bank.ranks.count > 1:
        head = scene_map.head.state_dict()
        bank.ranks.call("register", head, camera, config, radial, generator.get_state())
    return register_images(
        bank.features,
        torch.arange(len(bank)),
        scene_map,
        camera,
        config,
        stride=bank.encoder.stride,
        pixel_scale=bank.pixel_scale,
        radial=radial,
        generator=generator,
        ranks=bank.ranks,
    )


def serve(ranks: Ranks, device: torch.device) -> None:
    """Takes part in what rank 0 calls for, until it ends."""
    bank: ImageBank | None = None
    for name, arguments in ranks.calls(RECORDS, device):
        if name == "bank":
            bank = _bank_of(ranks, device, *arguments)
            continue
        assert bank is not None, "images come before all else"
        if name == "fill":
            fill_buffer(bank, *arguments)
        elif name == "train":
            _take_part_in_training(bank, *arguments)
        else:
            _take_part_in_registration(bank, *arguments)


def _bank_of(
    ranks: Ranks,
    device: torch.device,
    shape: tuple[int, ...],
    size: tuple[int, int],
    encoder: str,
    config: BankConfig,
    seed: int,
) -> ImageBank:
    """The images without their files, which rank 0 alone reads."""
    pixels = torch.empty(shape, dtype=torch.uint8)
    ranks.broadcast([pixels])
    names = tuple(str(row) for row in range(shape[0]))
    images = LoadedImages(ImageSet(names, tuple(map(Path, names)), *size), pixels)
    return ImageBank(images, images, make_encoder(encoder, device), config, device, seed, ranks)


def _take_part_in_training(
    bank: ImageBank,
    table: FrameTable,
    config: TrainingConfig,
    state: Tensor,
    heads: int,
    head: dict[str, Any] | None,
) -> None:
    try:
        train(
            bank,
            table,
            config,
            generator=_generator(state, bank.device),
            heads=heads,
            initial_head=None if head is None else _head_of(head, bank.device),
        )
    except FloatingPointError:
        return  # rank 0 has met the same numbers, and decides


def _take_part_in_registration(
    bank: ImageBank,
    head: dict[str, Any],
    camera: PinholeCamera,
    config: RegistrationConfig,
    radial: Tensor,
    state: Tensor,
) -> None:
    scene_map = SceneMap(_head_of(head, bank.device), bank.encoder.identifier, 1, 1.0)
    generator = _generator(state, torch.device("cpu"))
    register(bank, scene_map, camera, config, radial=radial, generator=generator)


def _head_of(state: dict[str, Any], device: torch.device) -> Head:
    return head_from_state(state).to(device).eval().requires_grad_(False)


def _generator(state: Tensor, device: torch.device) -> torch.Generator:
    generator = torch.Generator(device)
    generator.set_state(state)
    return generator
