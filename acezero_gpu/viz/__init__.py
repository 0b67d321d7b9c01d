"""Pictures of a reconstruction."""

from acezero_gpu.viz.cameras import plot_reconstruction
from acezero_gpu.viz.cell_pictures import plot_inliers, plot_reprojection_error, plot_scene_coordinates
from acezero_gpu.viz.match_picture import plot_map_matches
from acezero_gpu.viz.trajectory_picture import plot_trajectory

__all__ = [
    "plot_inliers",
    "plot_map_matches",
    "plot_reconstruction",
    "plot_reprojection_error",
    "plot_scene_coordinates",
    "plot_trajectory",
]
