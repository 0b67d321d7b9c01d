"""Shape annotations are executed in this test run: without that they would slowly become false."""

import jaxtyping
import pytest
import torch

from acezero_gpu.evaluation import PairwiseErrors
from acezero_gpu.geometry import PinholeCamera, cell_centres_px, compose, fit_similarity, transform_points

WRONG_SHAPE = jaxtyping.TypeCheckError


def test_a_wrong_shape_raises():
    with pytest.raises(WRONG_SHAPE):
        compose(torch.zeros(4, 4), torch.zeros(4, 4))


def test_shapes_that_contradict_each_other_raise():
    points = torch.zeros(5, 3)
    fit_similarity(points, points)
    with pytest.raises(WRONG_SHAPE):
        fit_similarity(points, torch.zeros(6, 3))
    with pytest.raises(WRONG_SHAPE):
        transform_points(torch.zeros(2, 3, 4), torch.zeros(3, 7, 3))


def test_a_wrong_element_type_raises():
    with pytest.raises(WRONG_SHAPE):
        compose(torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, 4, dtype=torch.long))


def test_fields_of_records_are_checked_too():
    with pytest.raises(WRONG_SHAPE):
        PinholeCamera(torch.zeros(3), torch.zeros(2))
    with pytest.raises(WRONG_SHAPE):
        PairwiseErrors(torch.zeros(3), torch.zeros(4))


def test_arguments_that_are_no_tensors_are_checked_too():
    with pytest.raises(WRONG_SHAPE):
        cell_centres_px("60", 80, 8)
