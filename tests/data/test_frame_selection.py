"""The sharpest frame of each stretch of time, and no other."""

import cv2
import numpy as np
import pytest

from acezero_gpu.data.frame_selection import FrameSelection, select_frames, sharpness

TIMES = np.arange(10) / 10
SHARP = np.array([5.0, 1, 2, 3, 9, 4, 4, 8, 0, 7])


def chosen(times: np.ndarray = TIMES, sharp: np.ndarray = SHARP, **selection: object) -> list[int]:
    return select_frames(times, sharp, FrameSelection(**selection)).tolist()


def test_without_a_wish_every_frame_stays() -> None:
    assert chosen() == list(range(10))


def test_the_sharpest_of_so_many_frames() -> None:
    assert chosen(every=3) == [0, 4, 7, 9]
    assert chosen(every=100) == [4]


def test_the_sharpest_of_each_interval_of_time() -> None:
    assert chosen(fps=2.0) == [4, 7]
    assert chosen(fps=100.0) == list(range(10))
    uneven = np.array([7.0, 7.1, 7.2, 7.3, 7.4, 7.45, 8.6, 8.7, 8.8, 9.4])
    assert chosen(uneven, fps=1.0) == [4, 7, 9]  # stretches begin with the first frame


def test_of_equally_sharp_frames_the_first() -> None:
    assert chosen(sharp=np.ones(10), every=5) == [0, 5]


def test_blurred_frames_are_left_out_and_with_them_empty_stretches() -> None:
    assert chosen(min_sharpness=5.0) == [0, 4, 7, 9]
    assert chosen(every=2, min_sharpness=4.0) == [0, 4, 7, 9]
    assert chosen(min_sharpness=10.0) == []


def test_too_many_stretches_are_put_together_evenly() -> None:
    assert chosen(max_frames=2) == [4, 7]
    assert chosen(max_frames=3) == [0, 4, 7]
    assert chosen(max_frames=10) == list(range(10))
    many = chosen(np.arange(1000) / 30, np.ones(1000), max_frames=7)
    assert len(many) == 7
    assert np.ptp(np.diff(many)) <= 1


def test_nothing_of_nothing() -> None:
    assert chosen(np.zeros(0), np.zeros(0), fps=2.0, max_frames=3) == []


def test_sharpness_is_the_variance_of_opencvs_laplacian_and_falls_with_blur() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    laplacian = cv2.Laplacian(image, cv2.CV_64F)[1:-1, 1:-1]
    assert sharpness(image) == pytest.approx(laplacian.var(), rel=1e-5)
    assert sharpness(cv2.GaussianBlur(image, (0, 0), 2)) < 0.1 * sharpness(image)
    assert sharpness(image[:2]) == 0


def test_the_flags_select_the_same() -> None:
    assert FrameSelection(fps=2.5, max_frames=30).flags() == ["--fps", "2.5", "--max-frames", "30"]
    assert FrameSelection(every=4, min_sharpness=7.0).flags() == ["--every", "4", "--min-sharpness", "7"]
