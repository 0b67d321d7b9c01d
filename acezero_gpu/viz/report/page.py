"""The page itself: one HTML file that needs nothing else."""

import base64
import io
from importlib.resources import files
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from acezero_gpu.runtime.atomic import write_atomically
from acezero_gpu.viz.report.charts import charts_of, themed_svg
from acezero_gpu.viz.report.content import ReportContent, ReportImage
from acezero_gpu.viz.report.scene import colour_range, legend_colours, scene_of

THUMBNAIL_BYTES = 3_000_000
"""What the pictures of the cameras may take together; they become smaller where there are many."""
THUMBNAIL_WIDTHS_PX = ((208, 12_000), (144, 7_000), (96, 4_000))
"""Widths, and about how many bytes a picture of that width takes."""
GALLERY_WIDTH_PX = 208
MOST_FAILED, MOST_WEAK = 60, 12
"""Images shown with a picture; further ones are listed by name."""
JPEG_QUALITY = 72


def write_report(path: str | Path, content: ReportContent) -> None:
    """Write the page; the file appears complete or not at all."""
    write_atomically(path, render_report(content))


def render_report(content: ReportContent) -> str:
    """The page as text. Names and messages are escaped: they may hold anything."""
    environment = Environment(
        loader=PackageLoader("acezero_gpu.viz.report", "page"), autoescape=True, undefined=StrictUndefined
    )
    failed = [image for image in content.images if not image.registered]
    weak = sorted(
        (image for image in content.images if image.placed_by in ("map", "unknown")),
        key=lambda image: image.confidence,
    )
    held = sum(image.placed_by == "keypoints" for image in content.images)
    page = environment.get_template("report.html.j2").render(
        content=content,
        held=held,
        verdict=_verdict(content),
        failed=[(image, _gallery_picture(image)) for image in failed[:MOST_FAILED]],
        more_failed=failed[MOST_FAILED:],
        weak=[(image, _gallery_picture(image)) for image in weak[:MOST_WEAK]],
        charts=charts_of(content),
        close_looks=[
            (
                look,
                [
                    (text, themed_svg(figure, f"{look.title} {number}"))
                    for number, (text, figure) in enumerate(look.figures)
                ],
            )
            for look in content.close_looks
        ],
        scene={**scene_of(content), "images": _camera_images(content)},
        legend=legend_colours(),
        colour_range=colour_range(content),
        style=_part("report.css"),
        script=_part("scene_view.js"),
    )
    # A name that is no UTF-8 would make the file none.
    return page.encode("utf-8", errors="replace").decode("utf-8")


def _verdict(content: ReportContent) -> tuple[str, str]:
    """A class for the colour, and the sentence that the page begins with."""
    found, total = content.registered, len(content.images)
    if found == 0:
        return "bad", f"None of the {total} images has a pose"
    if found == total:
        return "good", f"All {total} images have a pose"
    return "good" if found >= 0.95 * total else "fair", f"{found} of {total} images have a pose"


def _part(name: str) -> Markup:
    return Markup(files("acezero_gpu.viz.report").joinpath("page", name).read_text(encoding="utf-8"))


def _gallery_picture(image: ReportImage) -> str | None:
    return None if image.picture is None else _data_uri(image.picture, GALLERY_WIDTH_PX)


def _camera_images(content: ReportContent) -> list[dict[str, Any]]:
    """What a click on a camera shows, for all images."""
    count = sum(image.registered and image.picture is not None for image in content.images)
    width = next((width for width, size in THUMBNAIL_WIDTHS_PX if size * count <= THUMBNAIL_BYTES), None)
    return [
        {
            "name": image.name,
            "by": image.placed_by,
            "confidence": round(image.confidence, 1),
            "picture": _data_uri(image.picture, width)
            if image.picture is not None and width is not None and image.registered
            else None,
        }
        for image in content.images
    ]


def _data_uri(picture: UInt8[Tensor, "h w 3"], width_px: int) -> str:
    image = Image.fromarray(picture.cpu().numpy())
    if image.width > width_px:
        image = image.resize((width_px, max(1, round(image.height * width_px / image.width))))
    target = io.BytesIO()
    image.save(target, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode()
