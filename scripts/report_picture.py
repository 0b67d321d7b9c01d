"""A picture of a report for the README: python scripts/report_picture.py RUN/report.html docs/report.png

Needs Chromium. The picture is what a window of 1280 x 860 pixels shows, in few enough colours to be small.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT, COLOURS = 1280, 860, 128
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")
"""Without the sandbox, so that it works in containers; the page is our own and asks for nothing."""


def main(page: Path, picture: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = ["chromium", *FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        # Time for the view to be drawn: the clock of the page runs ahead.
        command += ["--virtual-time-budget=3000", f"--screenshot={shot}", page.absolute().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        image = Image.open(shot).convert("RGB").crop((0, 0, WIDTH, HEIGHT))
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)
    print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
