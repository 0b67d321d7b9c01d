"""``python cli.py …`` is ``acezero …`` without an installation."""

from acezero_gpu.cli import main

raise SystemExit(main())
