"""Measurements on image sets with known poses: ``python -m benchmarks --help``; see docs/benchmarks.md."""
