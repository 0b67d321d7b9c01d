"""The device is the one that was asked for, or the request is refused."""

import pytest
import torch

from acezero_gpu.runtime import autocast, describe_device, resolve_device


def test_cpu_is_cpu():
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_takes_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("choice", ["cuda", "cuda:0"])
def test_a_missing_gpu_is_never_replaced_silently(choice, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device; use --device cpu"):
        resolve_device(choice)


def test_an_unknown_device_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="choose auto, cpu or cuda"):
        resolve_device("gpu")


def test_description_names_what_will_run(device):
    text = describe_device(device)
    if device.type == "cpu":
        assert text == f"CPU, {torch.get_num_threads()} threads"
    else:
        assert text == torch.cuda.get_device_name(device)


def test_autocast_lowers_products_only_where_it_is_enabled(device):
    a = torch.ones(4, 4, device=device)
    with autocast(device, enabled=False):
        assert (a @ a).dtype == torch.float32
    with autocast(device):
        lowered = (a @ a).dtype
    assert lowered == (torch.float16 if device.type == "cuda" else torch.float32)
