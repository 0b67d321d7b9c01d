"""Poses of images from a map."""

from acezero_gpu.registration.agreement import CellAgreement, cell_agreement
from acezero_gpu.registration.register import FeatureSource, Registration, RegistrationConfig, register_images

__all__ = [
    "CellAgreement",
    "FeatureSource",
    "Registration",
    "RegistrationConfig",
    "cell_agreement",
    "register_images",
]
