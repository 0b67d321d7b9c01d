"""Asking all heads of a map about some cells, and one about all cells of an image."""

import torch

from acezero_gpu.network import Head, HeadConfig, SceneMap, ensemble_of
from acezero_gpu.registration.head_choice import points_at, points_by, some_cells


def test_a_large_grid_is_looked_at_in_every_second_row_and_column(device):
    cells = some_cells(32, 33, device)
    assert len(cells) == 16 * 17
    assert ((cells // 33) % 2 == 0).all() and ((cells % 33) % 2 == 0).all()
    assert torch.equal(some_cells(15, 20, device), torch.arange(300, device=device))


def test_pairs_of_head_and_image_are_those_of_all_heads(device, generator):
    heads = []
    for _ in range(3):
        head = Head(6, HeadConfig(width=16), torch.randn(3, generator=generator))
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
        heads.append(head.requires_grad_(False))
    scene_map = SceneMap(ensemble_of(heads).to(device), "x", 48, 1.0)
    features = torch.randn(4, 6, 5, 7, generator=generator).to(device)
    everything = scene_map.scene_coordinates(features)
    head, image = torch.tensor([[0, 2, 2, 0], [3, 1, 0, 0]], device=device)
    found = points_by(scene_map.parts(), features, head, image)
    torch.testing.assert_close(found, everything[head, image], atol=1e-5, rtol=1e-5)
    cells = torch.tensor([3, 30, 8], device=device)
    torch.testing.assert_close(points_at(scene_map, features, cells), everything[:, :, cells])


def test_a_map_of_one_head_is_its_only_part(generator):
    scene_map = SceneMap(Head(6, HeadConfig(width=8), torch.zeros(3)), "x", 48, 1.0)
    assert scene_map.parts() == (scene_map,)
