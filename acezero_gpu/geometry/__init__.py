"""Frames, cameras, and the way between pixels and rays. See docs/conventions.md."""

from acezero_gpu.geometry.alignment import Similarity, fit_similarity, nearest_rotation
from acezero_gpu.geometry.camera import PinholeCamera
from acezero_gpu.geometry.cells import cell_centres_px, grid_size
from acezero_gpu.geometry.distortion import undistort_pixels
from acezero_gpu.geometry.pose import (
    camera_centres,
    compose,
    hat,
    invert,
    matrix_from_se3,
    orthonormalise,
    retract,
    rotation_angle_deg,
    se3_from_matrix,
    transform_points,
)
from acezero_gpu.geometry.reprojection import Reprojection, project, reproject, reprojection_jacobian
from acezero_gpu.geometry.triangulation import Triangulation, triangulate, triangulate_tracks

__all__ = [
    "PinholeCamera",
    "Reprojection",
    "Similarity",
    "Triangulation",
    "camera_centres",
    "cell_centres_px",
    "compose",
    "fit_similarity",
    "grid_size",
    "hat",
    "invert",
    "matrix_from_se3",
    "nearest_rotation",
    "orthonormalise",
    "project",
    "reproject",
    "reprojection_jacobian",
    "retract",
    "rotation_angle_deg",
    "se3_from_matrix",
    "transform_points",
    "triangulate",
    "triangulate_tracks",
    "undistort_pixels",
]
