"""What is measured: one module per command."""
