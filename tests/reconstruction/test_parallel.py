"""Two processes that share patches, mapping and registration end with what one process has."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.analytic_world import World, make_world
from reference.free_port import free_port
from reference.posed_scene import make_scene
from torch import Tensor

from acezero_gpu.data import ImageSet, LoadedImages
from acezero_gpu.mapping import (
    BufferConfig,
    CalibrationConfig,
    FrameTable,
    PoseRefinementConfig,
    ReestimationConfig,
    ScheduleConfig,
    TrainingConfig,
    train_map,
)
from acezero_gpu.mapping.calibration import FocalScale
from acezero_gpu.mapping.pose_refinement import make_pose_table
from acezero_gpu.mapping.training_step import TrainingStep
from acezero_gpu.network import Head, HeadConfig, SceneMap, make_encoder
from acezero_gpu.ransac import RansacConfig
from acezero_gpu.reconstruction import BankConfig, ImageBank, parallel
from acezero_gpu.registration import RegistrationConfig, register_images
from acezero_gpu.runtime.distributed import ALONE, Ranks, join_ranks, leave_ranks

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    head=HeadConfig(width=48, blocks=0),
    schedule=ScheduleConfig(name="constant", iterations=12, lr_max=0.001),
    poses=PoseRefinementConfig(
        "mlp+lm", zero_initialised=False, reestimation=ReestimationConfig(start=4, interval=4)
    ),
    calibration=CalibrationConfig(refine=True),
    batch_size=501,
    report_every=4,
)
"""A batch that two ranks cannot halve evenly."""


def table_of(world: World) -> FrameTable:
    start = world.disturbed_poses(torch.Generator().manual_seed(2))
    return FrameTable(torch.arange(len(world)), start, world.camera)


def gradients(ranks: Ranks) -> dict[str, Tensor]:
    """Of the first step, as the optimisers meet them, with the loss and the inlier share that it reports."""
    world = make_world()
    table = table_of(world)
    torch.manual_seed(5 + ranks.rank)  # rank 0 has the say of what all start from
    head = Head(world.features.shape[1], CONFIG.head, torch.zeros(3))
    poses = make_pose_table(table.cam_from_world, CONFIG.poses)
    focal, draws = FocalScale(table.camera), torch.Generator().manual_seed(0)
    config = replace(CONFIG, inlier_px=300.0)
    step = TrainingStep(world.buffer(), table, config, head, poses, focal, draws, ranks)
    met: dict[str, Tensor] = {}
    for name, optimiser in (
        ("matrices", step.head_optimisers[0]),
        ("rest of the head", step.head_optimisers[1]),
        ("poses", step.pose_optimiser),
        ("focal", step.focal_optimiser),
    ):
        assert optimiser is not None

        def keep(which: Any, _args: Any, _kwargs: Any, name: str = name) -> None:
            found = [parameter.grad.flatten() for parameter in which.param_groups[0]["params"]]
            met[name] = torch.cat(found).clone()

        optimiser.register_step_pre_hook(keep)
    loss, share = step(0, 0.0, 0.001)
    return met | {"loss": loss, "share": share}


def trained(ranks: Ranks) -> dict[str, Tensor]:
    world = make_world()
    draws = torch.Generator().manual_seed(0)
    result = train_map(world.buffer(), table_of(world), CONFIG, generator=draws, ranks=ranks)
    weights = torch.cat([value.flatten() for value in result.head.state_dict().values()])
    losses = torch.tensor([entry.loss for entry in result.log])
    return {
        "weights": weights,
        "poses": result.cam_from_world,
        "focal": result.camera.focal_px,
        "losses": losses,
    }


def small_bank(ranks: Ranks) -> ImageBank:
    """Seven pictures of noise in buffers of two at a time."""
    names = tuple(f"{row}.png" for row in range(7))
    pixels = torch.randint(256, (7, 1, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images = LoadedImages(ImageSet(names, tuple(map(Path, names)), 64, 48), pixels)
    config = BankConfig(shortest_side_px=48, buffer=BufferConfig(max_passes=2, encode_batch=2))
    return ImageBank(images, images, make_encoder("dense-sift", CPU), config, CPU, 3, ranks)


def shared_work(ranks: Ranks) -> dict[str, Tensor]:
    """Everything that rank 0 calls for, on images that it alone has."""
    bank = small_bank(ranks)
    parallel.share_bank(bank, "dense-sift")
    frames = torch.tensor([0, 2, 3, 5, 6])
    parallel.fill_buffer(bank, frames)
    table = FrameTable(frames, torch.eye(3, 4).repeat(5, 1, 1), bank.camera(60.0))
    config = replace(
        CONFIG, schedule=replace(CONFIG.schedule, iterations=4), poses=PoseRefinementConfig("none")
    )
    first = parallel.train(bank, table, config, generator=torch.Generator().manual_seed(1))
    further = parallel.train(
        bank, table, config, generator=torch.Generator().manual_seed(2), initial_head=first.head
    )
    several = parallel.train(bank, table, config, generator=torch.Generator().manual_seed(4), heads=2)
    assert several.head.count == 2
    scene_map = SceneMap(several.head, bank.encoder.identifier, 48, 1.0)
    found = parallel.register(
        bank,
        scene_map,
        bank.camera(60.0),
        RegistrationConfig(batch=2),
        radial=torch.zeros(2),
        generator=torch.Generator().manual_seed(3),
    )
    return {
        "pixels": bank.buffer.pixels[frames],
        "features": bank.buffer.features[frames],
        "losses": torch.tensor([result.log[-1].loss for result in (first, further, several)]),
        "inlier_count": found.inlier_count,
    }


class TrueMap(SceneMap):
    """Finds the scene coordinate of a cell in the first three channels of its feature."""

    def scene_coordinates(self, features: Tensor, chunk_cells: int = 65536) -> Tensor:
        return features[:, :3].flatten(2).transpose(1, 2)[None]


def registered(ranks: Ranks, seed: int = 0) -> dict[str, Tensor]:
    """More images than ranks, with so few hypotheses that the draws decide how good a pose is."""
    scene = make_scene(5, rows=15, columns=20, device=CPU, noise_px=6.0, outliers=0.6)
    features = scene.points.transpose(1, 2).unflatten(2, (15, 20))
    found = register_images(
        lambda part: features[part],
        torch.tensor([4, 2, 0, 1, 3]),
        TrueMap(Head(3, HeadConfig(width=4), torch.zeros(3)), "truth", 480, 1.0),
        scene.camera,
        RegistrationConfig(RansacConfig(hypotheses=4, refinement_rounds=0, polish_rounds=0), batch=2),
        stride=32,
        pixel_scale=1.0,
        generator=torch.Generator().manual_seed(seed),
        ranks=ranks,
    )
    return {"cam_from_world": found.cam_from_world, "inlier_count": found.inlier_count}


def work(rank: int, port: int, folder: Path) -> None:
    """One of the two processes."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    ranks = join_ranks(CPU)
    found: dict[str, Any] = {
        "gradients": gradients(ranks),
        "trained": trained(ranks),
        "registered": registered(ranks),
    }
    if rank == 0:
        found["shared work"] = shared_work(ranks)
        ranks.end()
    else:
        parallel.serve(ranks, CPU)
    torch.save(found, folder / f"{rank}.pt")
    leave_ranks()


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, args=(free_port(), folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_the_step_of_two_ranks_is_that_of_one_process(by_two: list[dict[str, Any]]) -> None:
    alone = gradients(ALONE)
    assert all(alone[name].abs().max() > 0 for name in ("matrices", "rest of the head", "poses", "focal"))
    assert 0 < alone["share"] < 1
    for rank in range(2):
        found = by_two[rank]["gradients"]
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()))


def test_ranks_hold_the_same_bits_after_many_steps(by_two: list[dict[str, Any]]) -> None:
    first, second = (found["trained"] for found in by_two)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    alone = trained(ALONE)
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-3, atol=0)
    torch.testing.assert_close(first["poses"], alone["poses"], rtol=0, atol=2e-3)


def test_images_that_two_ranks_register_have_the_poses_of_one_process(by_two: list[dict[str, Any]]) -> None:
    alone = registered(ALONE)
    assert (alone["inlier_count"] > 3).all()
    assert not torch.equal(registered(ALONE, seed=1)["inlier_count"], alone["inlier_count"])
    for found in by_two:
        torch.testing.assert_close(
            found["registered"]["cam_from_world"], alone["cam_from_world"], rtol=0, atol=1e-5
        )
        assert torch.equal(found["registered"]["inlier_count"], alone["inlier_count"])


def test_a_rank_without_files_takes_part_in_all_that_is_called_for(by_two: list[dict[str, Any]]) -> None:
    found, alone = by_two[0]["shared work"], shared_work(ALONE)
    torch.testing.assert_close(found["pixels"], alone["pixels"])
    torch.testing.assert_close(found["features"], alone["features"])
    torch.testing.assert_close(found["losses"], alone["losses"], rtol=1e-3, atol=0)
    assert len(found["inlier_count"]) == 7
    assert (found["inlier_count"] - alone["inlier_count"]).abs().max() <= 3


def test_one_process_joins_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")  # some schedulers set it
    assert join_ranks(CPU) is ALONE
    assert not torch.distributed.is_initialized()
    assert ALONE.part(7) == slice(0, 7)
    assert ALONE.rows(3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("total", "count"), [(7, 3), (2, 3), (5120, 4)])
def test_ranks_share_without_remainder(total: int, count: int) -> None:
    ranks = [Ranks(rank, count) for rank in range(count)]
    assert [row for each in ranks for row in range(total)[each.part(total)]] == list(range(total))
    assert sorted(row for each in ranks for row in each.rows(total).tolist()) == list(range(total))
