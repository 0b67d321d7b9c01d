"""The names that ``import acezero_gpu`` offers exist where they are said to."""

import pytest

import acezero_gpu


@pytest.mark.parametrize("name", acezero_gpu.__all__)
def test_each_public_name_is_there(name):
    assert callable(getattr(acezero_gpu, name))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'reconstrct'"):
        _ = acezero_gpu.reconstrct
