"""The command line: wires the library together, holds no mathematics."""

from acezero_gpu.cli.app import app, main

__all__ = ["app", "main"]
