"""Poses of images from a map."""

from acezero_gpu.registration.register import FeatureSource, Registration, RegistrationConfig, register_images

__all__ = ["FeatureSource", "Registration", "RegistrationConfig", "register_images"]
