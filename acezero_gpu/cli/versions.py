"""What a run was made with."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def package_version() -> str:
    """The installed version, or ``unknown`` when the package runs from a bare folder."""
    return version_of("acezero-gpu")


def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    packages = {name: version_of(name) for name in ("torch", "kornia", "pypose")}
    return {"python": platform.python_version(), **packages, "acezero_gpu": package_version()}


def git_commit() -> str | None:
    """The commit of the checkout that the package runs from, None elsewhere."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def version_of(name: str) -> str:
    """Of an installed package, or ``unknown``."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
