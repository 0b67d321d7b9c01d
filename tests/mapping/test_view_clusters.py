"""Views are dealt out to heads in groups that belong together, as many for each."""

import pytest
import torch

from acezero_gpu.geometry import camera_centres, invert
from acezero_gpu.mapping import taught_heads, view_clusters


def views(centres: torch.Tensor, yaw: torch.Tensor) -> torch.Tensor:
    """World to camera; ``yaw`` in radians about the vertical axis."""
    world_from_cam = torch.zeros(len(centres), 3, 4)
    world_from_cam[:, 0, 0] = world_from_cam[:, 2, 2] = yaw.cos()
    world_from_cam[:, 0, 2], world_from_cam[:, 2, 0] = yaw.sin(), -yaw.sin()
    world_from_cam[:, 1, 1] = 1.0
    world_from_cam[:, :, 3] = centres
    return invert(world_from_cam)


def test_the_rooms_of_a_corridor_are_told_apart(generator, device):
    room = torch.randint(4, (50,), generator=generator).sort().values[torch.randperm(50, generator=generator)]
    room[:48] = torch.arange(48) % 4
    room = room[:48]
    centres = torch.randn(48, 3, generator=generator)
    centres[:, 0] += 20.0 * room
    poses = views(centres, torch.rand(48, generator=generator) * 6.28)
    assert torch.allclose(camera_centres(poses), centres, atol=1e-4)
    clusters = view_clusters(poses.to(device), 4)
    assert [len(rows) for rows in clusters] == [12] * 4
    assert sorted(torch.cat(clusters).tolist()) == list(range(48))
    for rows in clusters:
        assert len(room[rows].unique()) == 1
        assert torch.equal(rows, rows.sort().values)


def test_a_camera_that_turns_on_the_spot_is_split_by_where_it_looks(generator):
    yaw = torch.cat([torch.full((10,), 0.0), torch.full((10,), 3.0)]) + 0.1 * torch.randn(
        20, generator=generator
    )
    order = torch.randperm(20, generator=generator)
    clusters = view_clusters(views(torch.zeros(20, 3), yaw[order]), 2)
    assert {tuple(sorted((order[rows] < 10).tolist())) for rows in clusters} == {(False,) * 10, (True,) * 10}


@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_sizes_differ_by_one_at_most_whatever_the_number(generator, count):
    poses = views(torch.randn(23, 3, generator=generator), torch.rand(23, generator=generator))
    clusters = view_clusters(poses, count)
    sizes = [len(rows) for rows in clusters]
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    assert sorted(torch.cat(clusters).tolist()) == list(range(23))
    again = view_clusters(poses, count)
    assert all(torch.equal(a, b) for a, b in zip(clusters, again, strict=True))


def test_views_that_are_all_the_same_make_clusters_too():
    clusters = view_clusters(views(torch.ones(6, 3), torch.zeros(6)), 3)
    assert [len(rows) for rows in clusters] == [2, 2, 2]


def test_more_clusters_than_views_are_refused():
    with pytest.raises(ValueError, match="2 views cannot make 3 clusters"):
        view_clusters(views(torch.zeros(2, 3), torch.zeros(2)), 3)


def test_each_head_is_taught_by_views_of_its_own():
    assert [taught_heads(4, count, 16) for count in (1, 31, 32, 160)] == [1, 1, 2, 4]
