"""Published data sets as image sets: ``images``, ``poses``, ``set.json`` and lists, a folder for each scene."""

from acezero_gpu.io.datasets.catalogue import DATASETS, Dataset, Prepared, fetch, prepare

__all__ = ["DATASETS", "Dataset", "Prepared", "fetch", "prepare"]
