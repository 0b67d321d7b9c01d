"""Scene coordinate reconstruction in plain PyTorch."""
