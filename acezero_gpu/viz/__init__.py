"""Pictures of a reconstruction."""

from acezero_gpu.viz.cameras import plot_reconstruction

__all__ = ["plot_reconstruction"]
