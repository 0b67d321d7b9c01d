"""Images, what is known about them, and a synthetic scene with exact truth."""

from acezero_gpu.data.depth import DepthFiles, DepthSource, find_depth_files
from acezero_gpu.data.image_set import ImageSet, resolve_images
from acezero_gpu.data.loading import LoadedImages, load_colours, load_grey
from acezero_gpu.data.posed_views import PosedViews

__all__ = [
    "DepthFiles",
    "DepthSource",
    "ImageSet",
    "LoadedImages",
    "PosedViews",
    "find_depth_files",
    "load_colours",
    "load_grey",
    "resolve_images",
]
