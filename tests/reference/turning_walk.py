"""A walk with a turn of the camera on the spot, as points, places of the views, and who sees what."""

import torch

WALK, TURN = 8, 6


def walk_with_turn(device: torch.device, across: int = 0, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """A camera walks past a wall, turns on the spot, and walks on past another: points, centres, observations.

    The views of the turn stand in one place; half of them see the first wall, half the second, all see a hundred points
    as good as infinitely far. ``across`` points near by are seen by every view.
    """
    random = torch.Generator().manual_seed(seed)
    steps = torch.arange(WALK).float()
    first = torch.stack([steps - WALK, 0 * steps, 0 * steps], dim=1)
    turn = 1e-3 * torch.randn(TURN, 3, generator=random)
    second = torch.stack([0 * steps, 0 * steps, steps + 1], dim=1)
    centres = torch.cat([first, turn, second])
    offset = torch.tensor([[-4.0, 0, 5], [5.0, 0, 4]])
    walls = [4 * torch.rand(60, 3, generator=random) + place for place in offset]
    far = 1e5 * torch.nn.functional.normalize(torch.randn(100, 3, generator=random), dim=1)
    near = torch.rand(across, 3, generator=random) + torch.tensor([0.0, 2, 0])
    views = torch.arange(len(centres))
    seers = [views[: WALK + TURN // 2], views[WALK + TURN // 2 :], views, views]
    groups = [*walls, far, near]
    points = torch.cat(groups)
    view = torch.cat([v.repeat(len(group)) for v, group in zip(seers, groups, strict=True)])
    count = torch.cat([torch.full((len(group),), len(v)) for v, group in zip(seers, groups, strict=True)])
    point = torch.arange(len(points)).repeat_interleave(count)
    mixed = torch.randperm(len(view), generator=random)
    return tuple(x.to(device) for x in (points, centres, view[mixed], point[mixed]))
