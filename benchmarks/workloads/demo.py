"""The scene of ``acezero demo``: rendered, then reconstructed like any other set."""

from pathlib import Path

from acezero_gpu.cli.demo import HEIGHT, IMAGES, WIDTH
from acezero_gpu.data.synthetic import write_dataset
from benchmarks.image_sets import TruthSet, read_set


def render_demo_set(folder: Path) -> TruthSet:
    """The demonstration's pictures with their exact truth, in ``folder/demo``."""
    return read_set(write_dataset(folder / "demo", IMAGES, WIDTH, HEIGHT))
