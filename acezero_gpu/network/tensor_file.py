"""Files of tensors with a description: safetensors whose metadata holds JSON."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor


def read_tensors(path: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON under ``name`` in the metadata, empty if there is none, and all tensors.

    Raises what safetensors and JSON raise for a file that is neither.
    """
    with safe_open(path, framework="pt", device="cpu") as file:
        meta = json.loads((file.metadata() or {}).get(name, "{}"))
        return meta, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
