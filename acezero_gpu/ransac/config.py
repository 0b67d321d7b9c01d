"""How poses are estimated from correspondences with outliers: every knob, and three presets."""

from dataclasses import dataclass

from acezero_gpu.pnp import LossName
from acezero_gpu.ransac.scoring import ScoreName


@dataclass(frozen=True, slots=True)
class RansacConfig:
    """The default is ACE0's estimator with a fixed number of attempts; ``robust`` bears 90 % outliers."""

    hypotheses: int = 32
    """Poses scored per image; with ``fourth_point`` off, minimal samples of which every root is scored."""
    attempts: int = 16
    """Samples drawn per hypothesis; the first whose four points reproject within the threshold is taken. No
    effect with ``fourth_point`` off."""
    fourth_point: bool = True
    """Draw four points per sample, of which the last chooses among P3P's roots; off: three, all roots
    compete."""
    max_error_px: float = 10.0
    """A point is an inlier if its reprojection error is below this, in the unit of the given pixels."""
    score: ScoreName = "soft"
    """How hypotheses are compared: ``soft`` (sigmoid, DSAC*), ``count`` or ``msac``."""
    prescore_points: int = 0
    """Hypotheses are first scored on this many random points per image; 0 scores all on all points."""
    prescore_keep: int = 64
    """Hypotheses that go on to all points; no effect if ``prescore_points`` is 0."""
    local_candidates: int = 1
    """Best hypotheses that are refined before the best of them is chosen; 1 refines the winner only."""
    local_rounds: int = 1
    """Rounds of refinement of each candidate; no effect if ``local_candidates`` is 1."""
    refinement_rounds: int = 3
    """Rounds of refinement of the winner; inliers are selected anew in each."""
    refinement_iterations: int = 3
    """Levenberg-Marquardt steps per round."""
    polish_loss: LossName = "cauchy"
    """Robust loss of one last refinement on the inliers; ``squared`` leaves the refined pose as it is."""
    polish_scale_px: float | None = None
    """Scale of that loss in pixels; None takes it from the errors of each image (``robust_scale_px``)."""
    polish_iterations: int = 5
    """Levenberg-Marquardt steps of the last refinement; 0 leaves it out."""
    max_chunk_bytes: int = 1 << 29
    """Images are worked on in chunks whose temporary memory stays below about this."""

    def __post_init__(self) -> None:
        for name in ("hypotheses", "attempts", "prescore_keep", "local_candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"RansacConfig.{name} must be at least 1, got {getattr(self, name)}.")
        if not self.max_error_px > 0:
            raise ValueError(f"RansacConfig.max_error_px must be positive, got {self.max_error_px}.")

    @classmethod
    def fast(cls) -> "RansacConfig":
        """32 hypotheses of up to 16 attempts, as ACE0 does it: reliable down to about 40 % inliers."""
        return cls()

    @classmethod
    def balanced(cls) -> "RansacConfig":
        """About 1.5 times the work of ``fast``, and reliable down to 20 % inliers."""
        return cls(
            hypotheses=1024,
            fourth_point=False,
            score="msac",
            prescore_points=64,
            prescore_keep=16,
        )

    @classmethod
    def robust(cls) -> "RansacConfig":
        """Many more minimal samples, and several candidates refined: reliable down to 10 % inliers."""
        return cls(
            hypotheses=16384,
            fourth_point=False,
            score="msac",
            prescore_points=64,
            prescore_keep=64,
            local_candidates=4,
            local_rounds=2,
        )
