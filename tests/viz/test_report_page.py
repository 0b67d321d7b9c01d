"""The page as a file: one piece, small, safe, and complete."""

import base64
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from report_contents import HOSTILE, circle_poses, failed_run, large_run

from acezero_gpu.viz.report import ReportContent, render_report
from acezero_gpu.viz.report.scene import scene_of


class Page(HTMLParser):
    """Elements with their attributes, visible text, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style" and data.strip():
            self.text.append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return large_run()


@pytest.fixture(scope="module")
def text(content: ReportContent) -> str:
    return render_report(content)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_a_run_of_125_images_is_less_than_six_megabytes(text: str) -> None:
    assert len(text.encode()) < 6_000_000


def test_everything_is_in_the_one_file(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed") or attributes.get("href") == "data:,"
        assert not (attributes.get("src") or "data:").partition("data:")[0]
        for key in ("href", "xlink:href"):
            assert (attributes.get(key) or "#").startswith(("#", "data:"))


def test_names_and_reasons_are_text_whatever_they_hold(page: Page) -> None:
    assert [attributes for tag, attributes in page.elements if "onerror" in attributes] == []
    assert [tag for tag, _ in page.elements].count("b") == 1  # the legend's own
    assert HOSTILE in page.text
    assert "4.0 % of its cells agree <b>with</b> the map" in page.text
    scene = json.loads(page.scripts[0])
    assert scene["images"][7]["name"] == HOSTILE


def test_a_name_that_is_no_unicode_does_not_break_the_page() -> None:
    content = large_run(images=1, points=10)
    image = content.images[0]
    object.__setattr__(image, "name", b"\xff.jpg".decode("utf-8", "surrogateescape"))
    render_report(content).encode("utf-8")


def test_what_matters_is_said(page: Page, content: ReportContent) -> None:
    assert f"{content.registered} of 125 images have a pose" in page.text
    headings = ("Registration", "Confidence", "Focal length", "Training loss", "Inliers in training")
    for said in (*headings, "Where the time went", "Images without a pose", "broken.jpg", "The surest"):
        assert said in page.text
    failed = [image for image in content.images if not image.registered]
    gallery = [attributes for tag, attributes in page.elements if tag == "img" and attributes.get("loading")]
    assert len(gallery) == len(failed) + 12
    for unit in ("mean loss (px)", "focal length (px of the files)", "seconds", "inliers (% of patches)"):
        assert unit in page.text


def test_the_view_holds_the_registered_cameras_and_the_points_where_they_are(content: ReportContent) -> None:
    scene = scene_of(content)
    shown = [camera["image"] for camera in scene["cameras"]]
    assert shown == [row for row, image in enumerate(content.images) if image.registered]
    steps = np.frombuffer(base64.b64decode(scene["points"]), "<u2").reshape(-1, 3)
    colours = np.frombuffer(base64.b64decode(scene["colours"]), np.uint8).reshape(-1, 3)
    points = (steps / 65535 - 0.5) * scene["span"]
    assert len(points) == len(colours) == 60_000
    apexes = np.array([camera["corners"][:3] for camera in scene["cameras"]])
    # The cameras stand level on a circle around the middle: so they must in the frame of the view, y upwards.
    assert np.ptp(apexes[:, 1]) < 1e-3
    radii = np.linalg.norm((apexes - apexes.mean(0))[:, [0, 2]], axis=1)
    assert np.ptp(radii) < 0.05 * radii.mean()
    spread = points.std(0)
    assert spread[0] / spread[1] == pytest.approx(3.0, rel=0.05)
    ahead = (
        np.array([camera["corners"][3:15] for camera in scene["cameras"]]).reshape(-1, 4, 3).mean(1) - apexes
    )
    assert ((ahead * (apexes.mean(0) - apexes)).sum(1) > 0).all()


def test_colours_follow_the_confidence(content: ReportContent) -> None:
    scene = scene_of(content)
    bright = [int(camera["colour"][1:3], 16) + int(camera["colour"][3:5], 16) for camera in scene["cameras"]]
    confidence = [content.images[camera["image"]].confidence for camera in scene["cameras"]]
    assert np.corrcoef(bright, confidence)[0, 1] > 0.95


def test_a_run_that_failed_has_a_page_too() -> None:
    page = Page(render_report(failed_run()))
    assert "None of the 3 images has a pose, and the run did not finish" in " ".join(page.text)
    assert "summary.json is missing." in page.text
    assert page.text.count("the run did not write down why") == 3
    assert "Registration" not in page.text
    assert not any(tag == "canvas" for tag, _ in page.elements)


def test_an_empty_run_has_a_page() -> None:
    content = large_run(images=0, points=0)
    render_report(content)
    assert circle_poses(0).shape == (0, 3, 4)
    assert torch.isfinite(content.points).all()
