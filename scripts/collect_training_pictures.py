"""Collects freely licensed photographs from Debian packages into a folder for ``acezero train-encoder``.

Needs ``apt-get`` and ``dpkg-deb``; installs nothing. Only photographs are listed: these packages also hold
drawings and abstract pictures. Run it as ``python scripts/collect_training_pictures.py FOLDER``.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """Photographs of one Debian package."""

    name: str
    licence: str
    """As the package states it for these files."""
    pattern: str
    """Where a picture lies in the package; {} is its name."""
    pictures: tuple[str, ...]


PACKAGES = (
    Package(
        "mate-backgrounds",
        "GPL-2+",
        "usr/share/backgrounds/mate/nature/{}.jpg",
        (
            *(
                "Aqua",
                "Blinds",
                "Dune",
                "FreshFlower",
                "Garden",
                "GreenMeadow",
                "LadyBird",
                "RainDrops",
                "Storm",
            ),
            *("TwoWings", "Wood", "YellowFlower"),
        ),
    ),
    Package(
        "plasma-workspace-wallpapers",
        "LGPL-3 (GPL-2+ by the package)",
        "usr/share/wallpapers/{}/contents/images/2560x1600.jpg",
        (
            *("BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey"),
            *("Kite", "OneStandsOut", "Path", "summer_1am"),
        ),
    ),
)


def collect(package: Package, folder: Path) -> int:
    """Copies the package's photographs; how many there were."""
    found = 0
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(
            ["apt-get", "download", package.name], cwd=temporary, check=True, stdout=subprocess.DEVNULL
        )
        (archive,) = Path(temporary).glob("*.deb")
        unpacked = Path(temporary) / "unpacked"
        subprocess.run(["dpkg-deb", "-x", str(archive), str(unpacked)], check=True)
        for name in package.pictures:
            source = unpacked / package.pattern.format(name)
            if source.is_file():
                shutil.copy(source, folder / f"{package.name}-{name}{source.suffix}")
                found += 1
            else:
                sys.stderr.write(f"{package.name}: this version has no {name}\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        count = collect(package, folder)
        print(f"{package.name}: {count} photographs, {package.licence}")


if __name__ == "__main__":
    main()
