"""Modules: encoders, the per-scene head, and the map made of them."""

from acezero_gpu.network.dense_sift import DenseSiftEncoder
from acezero_gpu.network.encoder import FEATURE_DTYPE, Encoder, encode, make_encoder, packaged_encoder
from acezero_gpu.network.head import Head, HeadConfig, ensemble_of, head_from_state, parameter_count
from acezero_gpu.network.scene_map import SceneMap

__all__ = [
    "FEATURE_DTYPE",
    "DenseSiftEncoder",
    "Encoder",
    "Head",
    "HeadConfig",
    "SceneMap",
    "encode",
    "ensemble_of",
    "head_from_state",
    "make_encoder",
    "packaged_encoder",
    "parameter_count",
]
