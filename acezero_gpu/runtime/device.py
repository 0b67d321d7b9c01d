"""Which device runs, and in which precision its matrix products are done."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

DeviceChoice = Literal["auto", "cpu", "cuda"]


def resolve_device(choice: str) -> torch.device:
    """``auto`` takes CUDA when it is there, else the CPU; an explicit choice is never replaced silently.

    Raises ``ValueError`` with a sentence when the named device does not exist here.
    """
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if choice.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {choice}: this PyTorch sees no CUDA device; use --device cpu or auto.")
    if choice != "cpu" and not choice.startswith("cuda"):
        raise ValueError(f"--device {choice}: choose auto, cpu or cuda.")
    return torch.device(choice)


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
