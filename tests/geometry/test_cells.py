"""Prediction cells against the mean of the pixel centres that they cover."""

import pytest
import torch

from acezero_gpu.geometry import cell_centres_px, grid_size


@pytest.mark.parametrize("stride", [1, 4, 8])
def test_a_cell_is_centred_on_the_pixels_it_covers(stride, device, dtype):
    rows, columns = 5, 7
    u = (torch.arange(columns * stride, device=device, dtype=dtype) + 0.5).expand(rows * stride, -1)
    v = (torch.arange(rows * stride, device=device, dtype=dtype) + 0.5)[:, None].expand(-1, columns * stride)
    pooled = torch.nn.functional.avg_pool2d(torch.stack([u, v])[None], stride)
    # Flattened as a feature map is: row by row, which is the order that predictions come in.
    expected = pooled[0].flatten(1).T
    got = cell_centres_px(rows, columns, stride, device=device, dtype=dtype)
    torch.testing.assert_close(got, expected)


def test_only_whole_cells_count():
    assert grid_size(480, 640, 8) == (60, 80)
    assert grid_size(487, 647, 8) == (60, 80)
    assert grid_size(7, 9, 8) == (0, 1)
