"""The contrastive loss rewards features that find their match, and the accuracy counts them."""

import pytest
import torch

from acezero_gpu.encoder_training.loss import bilinear_cells, matching_accuracy, matching_loss
from acezero_gpu.geometry import cell_centres_px

ROWS, COLUMNS, STRIDE = 5, 7, 8
CELLS = ROWS * COLUMNS


def shares_by_hand(x: float, y: float) -> torch.Tensor:
    """Weight of every cell for a pixel, by interpolating each cell's own indicator image."""
    indicator = torch.eye(CELLS).view(CELLS, 1, ROWS, COLUMNS)
    grid = torch.tensor([2 * x / (STRIDE * COLUMNS) - 1, 2 * y / (STRIDE * ROWS) - 1]).view(1, 1, 1, 2)
    return torch.nn.functional.grid_sample(
        indicator, grid.expand(CELLS, 1, 1, 2), padding_mode="border", align_corners=False
    ).flatten()


@pytest.mark.parametrize("pixel", [(4.0, 4.0), (10.3, 21.7), (0.5, 39.9), (55.9, 1.0), (27.9, 20.1)])
def test_shares_are_those_of_bilinear_interpolation(pixel):
    index, share = bilinear_cells(torch.tensor([pixel]), ROWS, COLUMNS, STRIDE)
    found = torch.zeros(CELLS).index_add(0, index[0], share[0])
    torch.testing.assert_close(found, shares_by_hand(*pixel), atol=1e-5, rtol=0)


def case(device, generator, batch=3):
    """Random features; b's are a's, shifted by one column."""
    a = torch.randn(batch, 16, ROWS, COLUMNS, generator=generator).to(device)
    b = a.roll(1, dims=-1)
    where = (cell_centres_px(ROWS, COLUMNS, STRIDE) + torch.tensor([float(STRIDE), 0.0])).to(device)
    seen = where[:, 0] < STRIDE * COLUMNS
    return a, b, where.expand(batch, -1, 2), seen.expand(batch, -1)


def loss_of(a, b, where, seen, anchors=CELLS, temperature=3.0):
    return matching_loss(
        a,
        b,
        where,
        seen,
        torch.tensor(temperature, device=a.device),
        STRIDE,
        anchors,
        torch.Generator().manual_seed(0),
    )


def test_right_features_cost_less(device, generator):
    a, b, where, seen = case(device, generator)
    right, wrong = loss_of(a, b, where, seen), loss_of(a, a, where, seen)
    assert right < 0.1 < wrong
    assert matching_accuracy(a, b, where, seen, STRIDE).min() == 1
    assert matching_accuracy(a, a, where, seen, STRIDE, radius_px=4.0).max() == 0


def test_what_is_not_seen_has_no_weight(device, generator):
    a, b, where, seen = case(device, generator)
    spoiled = torch.where(seen[..., None], where, where.new_tensor(3.0))
    torch.testing.assert_close(loss_of(a, b, where, seen), loss_of(a, b, spoiled, seen))
    nothing = loss_of(a, b, where, torch.zeros_like(seen))
    assert float(nothing) == 0


def test_other_pairs_count_as_negatives(device, generator):
    a, b, where, seen = case(device, generator, batch=2)
    alone = torch.stack([loss_of(a[i : i + 1], b[i : i + 1], where[:1], seen[:1]) for i in range(2)]).mean()
    copied = loss_of(torch.cat([a, a]), torch.cat([b, b]), where[:1].expand(4, -1, 2), seen[:1].expand(4, -1))
    # In the second case some of the foreign cells are the very matches, and nothing can tell them apart.
    assert loss_of(a, b, where, seen) < alone + 0.1 < copied


def test_gradients_are_finite_and_lower_the_loss(device, generator):
    a, b, where, seen = case(device, generator)
    b = (b + 2 * torch.randn(b.shape, generator=generator).to(device)).requires_grad_()
    before = loss_of(a, b, where, seen, anchors=20)
    before.backward()
    assert torch.isfinite(b.grad).all() and b.grad.abs().sum() > 0
    with torch.no_grad():
        after = loss_of(a, b - 2.0 * b.grad / b.grad.norm(), where, seen, anchors=20)
    assert after < before
