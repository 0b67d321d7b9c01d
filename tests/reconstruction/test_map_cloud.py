"""Which scene coordinates of a map make a cloud."""

import torch

from acezero_gpu.reconstruction.map_cloud import CloudConfig, _jumps, choose_points, cloud_unit

ERROR = torch.tensor([0.2, 0.4, 0.6, 0.8, 2.0, 5.0])
JUMP = torch.tensor([0.05, 0.3, 0.05, 2.0, 0.05, 0.05])


def chosen(cells: int = 6, **config: object) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    return choose_points(ERROR, JUMP, cells, CloudConfig(**config), generator).tolist()


def test_the_tightest_bound_on_jumps_that_leaves_enough() -> None:
    assert chosen(enough=2, enough_share=1.0) == [0, 2]
    assert chosen(enough=3, enough_share=1.0) == [0, 1, 2]
    assert chosen(enough=4, enough_share=1.0) == [0, 1, 2, 3]


def test_the_least_errors_fill_up() -> None:
    assert chosen(enough=5, enough_share=1.0) == [0, 1, 2, 3, 4]
    assert chosen(enough=100, enough_share=1.0) == [0, 1, 2, 3, 4, 5]


def test_a_share_of_all_cells_is_enough_where_there_are_few() -> None:
    assert chosen(cells=8, enough_share=0.25) == [0, 2]
    assert chosen(cells=20, enough_share=0.25) == [0, 1, 2, 3, 4]


def test_bounds_on_errors_follow_the_resolution() -> None:
    found = choose_points(
        ERROR, JUMP, 6, CloudConfig(enough=2, enough_share=1.0), torch.Generator(), pixel_scale=0.5
    )
    assert found.tolist() == [0, 1]  # of 0.5 px and less only one is without a jump of 0.1


def test_dense_takes_everything_and_too_many_are_thinned_out() -> None:
    assert chosen(dense=True) == [0, 1, 2, 3, 4, 5]
    few = chosen(dense=True, most=3)
    assert len(few) == 3
    assert few == sorted(few)


def test_lengths_are_those_of_the_scene_whatever_its_unit() -> None:
    depth = torch.tensor([1.0, 3.0, 200.0])
    assert cloud_unit(depth) == 1.0  # a room in metres
    assert cloud_unit(1000 * depth) == 1000.0
    assert cloud_unit(torch.zeros(0)) == 1.0


def test_jumps_are_to_the_farther_of_two_neighbours() -> None:
    x, y = torch.meshgrid(torch.arange(4.0), torch.arange(3.0), indexing="xy")
    field = torch.stack([x, 2 * y, torch.zeros_like(x)], dim=-1)
    field[1, 2, 2] = 10.0
    jumps = _jumps(field.flatten(0, 1)[None], (3, 4)).unflatten(1, (3, 4))[0]
    assert torch.equal(jumps[0], torch.tensor([2.0, 2.0, 104.0**0.5, 2.0]))
    assert jumps[1, 3] == 101.0**0.5
    assert jumps[1, 2] == 104.0**0.5
    assert jumps[2, 0] == 2.0
    assert torch.equal(_jumps(torch.zeros(2, 1, 3), (1, 1)), torch.zeros(2, 1))
