"""How poses are estimated from correspondences with outliers: every knob, and three presets."""

from dataclasses import dataclass, replace

from acezero_gpu.pnp import LossName
from acezero_gpu.ransac.scoring import ScoreName

_LARGEST_ROUND = 4096


@dataclass(frozen=True, slots=True)
class RansacConfig:
    """The default is ACE0's estimator with a fixed number of attempts; ``robust`` bears 90 % outliers."""

    hypotheses: int = 32
    """Poses scored per image; with ``fourth_point`` off, minimal samples of which every root is scored. 0
    draws none, so that only a given ``initial`` pose is refined."""
    attempts: int = 16
    """Samples drawn per hypothesis; the first whose four points reproject within the threshold is taken. No
    effect with ``fourth_point`` off."""
    fourth_point: bool = True
    """Draw four points per sample, of which the last chooses among P3P's roots; off: three, all roots
    compete."""
    first_round: int | None = None
    """Hypotheses of a first round; every further round adds half the number drawn so far, or 4096, up to
    ``hypotheses``. None draws all in one round."""
    confidence: float = 0.9999
    """An image is done after the round in which the chance to have drawn a sample of inliers alone, by the
    best pose's share of inliers, has reached this. No effect with a single round."""
    max_error_px: float = 10.0
    """A point is an inlier if its reprojection error is below this, in the unit of the given pixels."""
    score: ScoreName = "soft"
    """How hypotheses are compared: ``soft`` (sigmoid, DSAC*), ``count`` or ``msac``."""
    subset_points: int = 0
    """Hypotheses are compared, and candidates refined, on this many points spread at random over those of
    the image; 0, or more points than there are, takes all points. The final refinement has all points."""
    prescore_points: int = 0
    """Hypotheses are first scored on this many of the points, then the best on the rest; 0 leaves it out."""
    prescore_keep: int = 64
    """Hypotheses of a round that pass this first scoring; no effect if ``prescore_points`` is 0."""
    local_candidates: int = 1
    """Best hypotheses of a round that are refined before they are compared with the best so far."""
    local_rounds: int = 0
    """Rounds of refinement of each candidate; inliers are selected anew in each. 0 refines the winner only."""
    refinement_rounds: int = 3
    """Rounds of refinement of the winner on all points."""
    refinement_iterations: int = 3
    """Levenberg-Marquardt steps per round."""
    polish_loss: LossName = "cauchy"
    """Robust loss of the last refinement."""
    polish_scale_px: float | None = None
    """Scale of that loss in pixels; None takes it from the errors of each image (``robust_scale_px``)."""
    polish_gate: float = 2.0
    """The last refinement takes the points whose error is below this multiple of ``max_error_px``."""
    polish_rounds: int = 1
    """Rounds of the last refinement, points and scale chosen anew in each; 0 leaves it out."""
    polish_iterations: int = 4
    """Levenberg-Marquardt steps of each of them."""
    compile: bool = False
    """Use ``torch.compile`` for the minimal solver and the scores: the first call takes up to a minute, later
    ones are faster, with the same result up to rounding. Falls back where there is no compiler."""
    max_chunk_bytes: int | None = None
    """Images are worked on in chunks whose temporary memory stays below about this; None: 32 MB on a CPU
    (64 MB with ``compile``), where larger chunks would leave its caches, 2 GB on other devices."""

    def __post_init__(self) -> None:
        for name in ("attempts", "prescore_keep", "local_candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"RansacConfig.{name} must be at least 1, got {getattr(self, name)}.")
        if self.hypotheses < 0:
            raise ValueError(f"RansacConfig.hypotheses must not be negative, got {self.hypotheses}.")
        if self.first_round is not None and self.first_round < 1:
            raise ValueError(f"RansacConfig.first_round must be at least 1 or None, got {self.first_round}.")
        if not self.max_error_px > 0:
            raise ValueError(f"RansacConfig.max_error_px must be positive, got {self.max_error_px}.")
        if not 0 < self.confidence < 1:
            raise ValueError(f"RansacConfig.confidence must lie between 0 and 1, got {self.confidence}.")

    @property
    def rounds(self) -> tuple[int, ...]:
        """Hypotheses drawn in each round."""
        if self.hypotheses == 0:
            return ()
        sizes = [min(self.first_round or self.hypotheses, self.hypotheses)]
        while sum(sizes) < self.hypotheses:
            sizes.append(min(sum(sizes) // 2 or 1, _LARGEST_ROUND, self.hypotheses - sum(sizes)))
        return tuple(sizes)

    @property
    def sample_size(self) -> int:
        """Points per minimal sample."""
        return 4 if self.fourth_point else 3

    def samples(self, hypotheses: int) -> int:
        """Minimal samples drawn for so many hypotheses."""
        return hypotheses * (self.attempts if self.fourth_point else 1)

    @classmethod
    def fast(cls) -> "RansacConfig":
        """32 hypotheses of up to 16 attempts, as ACE0 does it: reliable down to about 40 % inliers."""
        return cls()

    @classmethod
    def balanced(cls) -> "RansacConfig":
        """Up to 2048 samples, fewer where many points are inliers: reliable down to 20 % inliers."""
        return replace(cls.robust(), hypotheses=2048, prescore_keep=16)

    @classmethod
    def robust(cls) -> "RansacConfig":
        """Up to 16384 samples: reliable down to 10 % inliers, and as fast as ``balanced`` where it is easy."""
        return cls(
            hypotheses=16384,
            fourth_point=False,
            first_round=256,
            confidence=0.95,
            score="msac",
            subset_points=1024,
            prescore_points=128,
            prescore_keep=32,
            local_candidates=2,
            local_rounds=1,
            refinement_rounds=1,
            refinement_iterations=2,
        )
