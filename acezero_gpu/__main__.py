"""``python -m acezero_gpu …`` is ``acezero …``."""

from acezero_gpu.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
