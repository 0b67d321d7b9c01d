"""Dense contrastive loss: every cell is to find its match among all cells of the other view and of other pictures."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor


def matching_loss(
    features_a: Float[Tensor, "b c rows cols"],
    features_b: Float[Tensor, "b c rows cols"],
    b_of_a: Float[Tensor, "b n 2"],
    seen_a: Bool[Tensor, "b n"],
    temperature: Tensor,
    stride: int,
    anchors: int,
    generator: Generator,
) -> Float[Tensor, ""]:
    """Cross entropy (InfoNCE, van den Oord et al., 2018) of cells of a over the cells of b.

    A match falls between four cell centres; it is shared among them by their bilinear weights, so the similarity
    learns to fall off smoothly around the match. Negatives are all other cells of the pair's own second view and as
    many cells of the other pairs'. ``anchors`` cells of each first view are drawn; features have any length.
    """
    a = torch.nn.functional.normalize(features_a.flatten(2), dim=1)
    b = torch.nn.functional.normalize(features_b.flatten(2), dim=1)
    rows, columns = features_b.shape[-2:]
    batch, _, cells = b.shape
    # Seen cells come first, in random order; what is not seen has no weight.
    order = (torch.rand(seen_a.shape, generator=generator).to(seen_a.device) + seen_a).argsort(
        1, descending=True
    )
    drawn = order[:, :anchors]
    weight = seen_a.gather(1, drawn).to(a.dtype)
    query = a.gather(2, drawn[:, None].expand(-1, a.shape[1], -1)).transpose(1, 2)
    own = query @ b
    elsewhere = (
        torch.randint(cells * (batch - 1), (cells,), generator=generator).to(a.device) if batch > 1 else None
    )
    logits = own
    if elsewhere is not None:
        pair = torch.arange(batch, device=a.device)[:, None]
        other = (pair + 1 + elsewhere // cells) % batch
        foreign = b[other, :, elsewhere % cells]
        logits = torch.cat([own, query @ foreign.transpose(1, 2)], dim=-1)
    log_share = torch.log_softmax(logits * temperature.exp(), dim=-1)
    where = b_of_a.gather(1, drawn[..., None].expand(-1, -1, 2))
    index, share = bilinear_cells(where, rows, columns, stride)
    losses = -(log_share.gather(2, index) * share).sum(-1)
    return (losses * weight).sum() / weight.sum().clamp_min(1)


def bilinear_cells(
    pixels: Float[Tensor, "*b 2"], rows: int, columns: int, stride: int
) -> tuple[Int[Tensor, "*b 4"], Float[Tensor, "*b 4"]]:
    """The four cells whose centres surround a pixel, and its bilinear weights; beyond the last centre, that one's."""
    position = pixels / stride - 0.5
    limit = position.new_tensor([columns - 1, rows - 1])
    position = torch.minimum(position.clamp_min(0), limit)
    low = torch.minimum(position.floor(), (limit - 1).clamp_min(0))
    share = position - low
    low = low.long()
    high = torch.minimum(low + 1, limit.long())
    index = torch.stack([y[..., 1] * columns + x[..., 0] for y in (low, high) for x in (low, high)], dim=-1)
    weight = torch.stack(
        [y * x for y in (1 - share[..., 1], share[..., 1]) for x in (1 - share[..., 0], share[..., 0])],
        dim=-1,
    )
    return index, weight


@torch.no_grad()
def matching_accuracy(
    features_a: Float[Tensor, "b c rows cols"],
    features_b: Float[Tensor, "b c rows cols"],
    b_of_a: Float[Tensor, "b n 2"],
    seen_a: Bool[Tensor, "b n"],
    stride: int,
    radius_px: float = 8.0,
) -> Float[Tensor, " b"]:
    """Share of the seen cells of a whose most similar cell of b lies within ``radius_px`` of the truth."""
    a = torch.nn.functional.normalize(features_a.float().flatten(2), dim=1)
    b = torch.nn.functional.normalize(features_b.float().flatten(2), dim=1)
    columns = features_b.shape[-1]
    best = (a.transpose(1, 2) @ b).argmax(-1)
    found = torch.stack([best % columns, best // columns], dim=-1) * stride + 0.5 * stride
    close = (found - b_of_a).norm(dim=-1) < radius_px
    return (close & seen_a).sum(1) / seen_a.sum(1).clamp_min(1)
