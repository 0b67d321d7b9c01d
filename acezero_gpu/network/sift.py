"""SIFT keypoints of one image after another: by kornia on any device, by OpenCV on the CPU."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import kornia.feature as KF
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from acezero_gpu.runtime import in_chunks

LOWEST_CONTRAST = 0.003
"""A tenth of what OpenCV asks for by default: the strongest keypoints are taken anyway, and dim walls have few."""


@dataclass(frozen=True, slots=True)
class SiftFeatures:
    """A fixed number of slots per image, strongest first; the score of an unused one is zero."""

    pixels: Float[Tensor, "n k 2"]
    """The centre of the top-left pixel is (0.5, 0.5)."""
    scores: Float[Tensor, "n k"]
    descriptors: Float[Tensor, "n k 128"]
    """RootSIFT (Arandjelović & Zisserman, CVPR 2012): of unit norm."""


def kornia_sift(images: Float[Tensor, "n 1 h w"], count: int, *, upright: bool) -> SiftFeatures:
    """On the device of the images, grey in [0, 1]."""
    detector = KF.SIFTFeatureScaleSpace(
        count, upright=upright, device=images.device, descriptor_backend="pyramid"
    )
    # One 640x480 image at a time keeps a CPU's caches warm: 0.28 s, against 0.42 s each in a batch of three.
    at_once = 8 if images.device.type == "cuda" else 1
    with torch.no_grad():
        parts = in_chunks("keypoints", len(images), at_once, lambda part: detector(images[part]))
    frames, scores, descriptors = (torch.cat(column) for column in zip(*parts, strict=True))
    # kornia counts from the centre of the top-left pixel, this package from its corner.
    return SiftFeatures(frames[..., 2] + 0.5, scores, descriptors)


def opencv_sift(images: Float[Tensor, "n 1 h w"], count: int, *, upright: bool) -> SiftFeatures:
    """On the CPU, an image per thread of torch's; grey in [0, 1], taken as 8 bits."""
    grey = (images[:, 0] * 255.0).round().to(torch.uint8).numpy()
    found = SiftFeatures(
        torch.zeros(len(images), count, 2),
        torch.zeros(len(images), count),
        torch.zeros(len(images), count, 128),
    )

    def find(row: int) -> None:
        pixels, scores, descriptors = _of_one_image(grey[row], count, upright)
        found.pixels[row, : len(scores)] = torch.from_numpy(pixels)
        found.scores[row, : len(scores)] = torch.from_numpy(scores)
        found.descriptors[row, : len(scores)] = torch.from_numpy(descriptors)

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the images are what is done in parallel
    try:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(find, range(len(images))))
    finally:
        cv2.setNumThreads(before)
    return found


def _of_one_image(
    grey: NDArray[np.uint8], count: int, upright: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    # Without the precise doubling of the image everything lies a quarter of a pixel off.
    sift = cv2.SIFT.create(
        nfeatures=0 if upright else count, contrastThreshold=LOWEST_CONTRAST, enable_precise_upscale=True
    )
    if upright:
        found, described = sift.compute(grey, _upright(sift.detect(grey, None), count))
    else:
        found, described = sift.detectAndCompute(grey, None)
    if described is None:
        return np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros((0, 128), np.float32)
    scores = np.array([keypoint.response for keypoint in found], np.float32)
    order = np.argsort(-scores, kind="stable")[:count]
    # OpenCV counts from the centre of the top-left pixel, this package from its corner.
    pixels = np.array(cv2.KeyPoint.convert(found), np.float32)[order] + np.float32(0.5)
    shares = described[order] / described[order].sum(axis=1, keepdims=True)
    return pixels, scores[order], np.sqrt(shares, dtype=np.float32)


def _upright(keypoints: Sequence[cv2.KeyPoint], count: int) -> list[cv2.KeyPoint]:
    """The strongest of them without an orientation; those that differ in it alone are one."""
    places = {(keypoint.pt, keypoint.size): keypoint for keypoint in keypoints}
    strongest = sorted(places.values(), key=lambda keypoint: -keypoint.response)[:count]
    for keypoint in strongest:
        keypoint.angle = 0.0
    return strongest
