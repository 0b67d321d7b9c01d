"""Which device runs, and in which precision its matrix products are done."""

import os
from contextlib import AbstractContextManager
from typing import Literal

import torch

from acezero_gpu.runtime.distributed import process_count

DeviceChoice = Literal["auto", "cpu", "cuda"]


def resolve_device(choice: str) -> torch.device:
    """``auto`` takes CUDA when it is there, else the CPU; an explicit choice is never replaced silently.

    Of several processes that torchrun has started, each gets a CUDA device of its own. Raises ``ValueError`` with a
    sentence when the named device does not exist here.
    """
    if process_count() > 1:
        return _device_of_rank(choice)
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if choice.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {choice}: this PyTorch sees no CUDA device; use --device cpu or auto.")
    if choice != "cpu" and not choice.startswith("cuda"):
        raise ValueError(f"--device {choice}: choose auto, cpu or cuda.")
    return torch.device(choice)


def _device_of_rank(choice: str) -> torch.device:
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if choice not in ("auto", "cuda"):
        raise ValueError(
            f"--device {choice}: torchrun's processes get a device each; use --device cuda, cpu or auto."
        )
    wanted, here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if wanted > here:
        raise ValueError(
            f"--device {choice}: torchrun was told to start {wanted} processes here, and this PyTorch sees {here} "
            f"CUDA devices; give --nproc-per-node {here}, or --device cpu."
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def describe_device(device: torch.device) -> str:
    """One phrase for logs and summaries."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def autocast(device: torch.device, enabled: bool = True) -> AbstractContextManager[None]:
    """Mixed precision for the head: float16 on CUDA, nothing on a CPU.

    bfloat16's eight binary digits are centimetres a few metres away, and on a CPU with instructions for it a step of
    the training took 1.5 times as long as in float32.
    """
    return torch.autocast(device.type, dtype=torch.float16, enabled=enabled and device.type == "cuda")
