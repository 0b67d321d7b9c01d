"""Named random streams: one seed, and no stage's draws depend on how many another stage made."""

import hashlib

import torch


def random_stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for ``(seed, names…)``; the same arguments give the same draws."""
    text = "/".join(str(part) for part in (seed, *names))
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:7], "little"))
