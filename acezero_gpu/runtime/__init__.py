"""Device, chunking, compilation, errors, timing and random streams: nothing here knows about vision."""

from acezero_gpu.runtime.chunking import chunk_ranges, chunk_size_for, limited_working_memory
from acezero_gpu.runtime.compilation import compiled
from acezero_gpu.runtime.device import autocast, describe_device, resolve_device
from acezero_gpu.runtime.errors import InputError
from acezero_gpu.runtime.memory import halving, in_chunks
from acezero_gpu.runtime.random_streams import random_stream
from acezero_gpu.runtime.timing import StageTimer

__all__ = [
    "InputError",
    "StageTimer",
    "autocast",
    "chunk_ranges",
    "chunk_size_for",
    "compiled",
    "describe_device",
    "halving",
    "in_chunks",
    "limited_working_memory",
    "random_stream",
    "resolve_device",
]
