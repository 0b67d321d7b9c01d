"""Which image pairs are matched, and their matches, each found once and kept."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.match_graph import PairMatches
from acezero_gpu.network.keypoints import match_pairs
from acezero_gpu.network.retrieval import look_alike_pairs, spread_ranks
from acezero_gpu.reconstruction.image_bank import ImageBank


class MatchStore:
    """Matches of image pairs, by image index."""

    def __init__(self, bank: ImageBank) -> None:
        self._bank = bank
        self._found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._deep: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        """Pairs that are matched."""
        return len(self._found)

    def ensure(self, pairs: Int[Tensor, "p 2"]) -> None:
        """Matches these pairs by their strongest keypoints if they are not matched yet."""
        self._match(sorted({_key(a, b) for a, b in pairs.tolist()} - self._found.keys()), every=False)

    def deepen(self, pairs: Int[Tensor, "p 2"]) -> int:
        """Matches these pairs again by all their keypoints; how many that were not matched so before."""
        shallow = sorted({_key(a, b) for a, b in pairs.tolist()} - self._deep)
        self._match(shallow, every=True)
        self._deep.update(shallow)
        return len(shallow)

    def _match(self, pairs: list[tuple[int, int]], *, every: bool) -> None:
        if not pairs:
            return
        wanted = torch.tensor(pairs)
        keypoints = self._bank.keypoints(wanted.flatten())
        config = self._bank.config.keypoints
        matches = match_pairs(keypoints, wanted.to(self._bank.device), config, every=every)
        # All at once: a mask of the whole for every row would cost the square of the pairs.
        rows, slots = matches.matched.nonzero(as_tuple=True)
        counts = torch.bincount(rows, minlength=len(pairs)).tolist()
        others = matches.index_b[rows, slots]
        found = zip(slots.split(counts), others.split(counts), strict=True)
        self._found.update(zip(pairs, found, strict=True))

    def slots(self, a: int, b: int) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
        """The matching keypoint slots of images a and b."""
        self.ensure(torch.tensor([[a, b]]))
        first, second = self._found[_key(a, b)]
        return (first, second) if a < b else (second, first)

    def between(self, pairs: Int[Tensor, "p 2"], views: Int[Tensor, " v"]) -> PairMatches:
        """Matches of these pairs, with image indices replaced by positions in ``views``."""
        self.ensure(pairs)
        row_of = {image: row for row, image in enumerate(views.tolist())}
        parts = []
        for a, b in {_key(a, b) for a, b in pairs.tolist()}:
            slots_a, slots_b = self._found[a, b]
            parts.append(
                PairMatches(
                    torch.full_like(slots_a, row_of[a]), torch.full_like(slots_b, row_of[b]), slots_a, slots_b
                )
            )
        return PairMatches.concatenate(parts, self._bank.device)


def _key(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def all_pairs(views: Int[Tensor, " v"]) -> Int[Tensor, "p 2"]:
    """Every pair of a few views."""
    return torch.combinations(views.cpu(), 2)


def neighbours(
    similarity: Float[Tensor, "n n"], image: int, allowed: Tensor, count: int
) -> Int[Tensor, " k"]:
    """Look-alikes of ``image`` among the ``allowed`` ones (a mask), spread over the ranks."""
    score = similarity[image].masked_fill(~allowed.to(similarity.device), -torch.inf).clone()
    score[image] = -torch.inf
    available = int(torch.isfinite(score).sum())
    order = score.argsort(descending=True).cpu()
    return order[torch.tensor(spread_ranks(count, available), dtype=torch.long)]


def partner_pairs(bank: ImageBank, registered: Bool[Tensor, " n"], partners: int) -> Int[Tensor, "p 2"]:
    """The pairs of registered images that are matched at all; each pair once, smaller index first.

    Every image has ``partners`` look-alikes among all images, whatever is registered: no pair is matched that will
    not serve to the end, and their number is linear in that of the images.
    """
    pairs = look_alike_pairs(bank.similarity(), partners)
    allowed = registered.cpu()
    return pairs[allowed[pairs].all(-1)]
