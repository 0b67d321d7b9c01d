"""The page in a real browser: quiet, offline, readable, and it turns."""

from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from chromium import Chromium, find_chromium
from report_contents import large_run

from acezero_gpu.viz.report import write_report

OVERLAPS = """
[...document.querySelectorAll("figure svg")].flatMap((svg, number) => {
  const frame = svg.getBoundingClientRect();
  const labels = [...svg.querySelectorAll("text")].filter(label => label.textContent.trim())
    .map(label => [label.textContent, label.getBoundingClientRect()]);
  const found = labels.filter(([_, box]) => box.left < frame.left - 1 || box.right > frame.right + 1
    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1).map(([name]) => `${number}: ${name} is cut off`);
  labels.forEach(([a, p], i) => labels.slice(i + 1).forEach(([b, q]) => {
    const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const along = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (across > 1 && along > 2) found.push(`${number}: ${a} touches ${b}`);
  }));
  return found;
})
"""
CONTRAST = """
(() => {
  const luminance = colour => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ground = luminance(getComputedStyle(document.querySelector("section")).backgroundColor);
  return [".verdict", "h2", "figcaption", "dt", "figure svg text", ".gallery span"].map(selector => {
    const style = getComputedStyle(document.querySelector(selector));
    const ink = luminance(selector.endsWith("text") ? style.fill : style.color);
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
  });
})()
"""
CAMERA_SPOT = """
(() => {
  const view = document.getElementById("view"), box = view.getBoundingClientRect();
  for (let y = box.top + 20; y < box.bottom; y += 12) for (let x = box.left + 20; x < box.right; x += 12) {
    view.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y, pointerId: 9 }));
    if (view.classList.contains("over")) return [x, y, document.getElementById("hover").textContent];
  }
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here")
    folder = tmp_path_factory.mktemp("browser")
    write_report(folder / "report.html", large_run(points=20_000))
    with Chromium(program, folder / "profile") as opened:
        opened.open(folder / "report.html", 1280, 900)
        yield opened


def view_middle(browser: Chromium) -> tuple[float, float]:
    browser.evaluate("document.getElementById('view').scrollIntoView({block: 'center'})")
    browser.settle()
    middle = "(b => [b.left + b.width / 2, b.top + b.height / 2])(view.getBoundingClientRect())"
    x, y = browser.evaluate(middle.replace("view.", "document.getElementById('view')."))
    return x, y


def test_it_opens_without_a_complaint_and_without_the_network(browser: Chromium) -> None:
    assert browser.complaints == []
    others = [url for url in browser.requests if not url.startswith("data:")]
    assert [Path(url).name for url in others] == ["report.html"]
    assert browser.evaluate("document.title") == "A kitchen – reconstruction"


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")]
)
def test_it_is_readable(browser: Chromium, width: int, scheme: str) -> None:
    browser.resize(width, 900, scheme)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OVERLAPS) == []
    assert min(browser.evaluate(CONTRAST)) >= 4.5
    smallest = "Math.min(...[...document.querySelectorAll('figure svg')].map(s => s.getScreenCTM().a))"
    assert browser.evaluate(smallest) > 0.8  # letters of 9 points are not shrunk to nothing


def test_a_drag_turns_the_view_and_a_click_does_not(browser: Chromium) -> None:
    browser.resize(1280, 900, "light")
    x, y = view_middle(browser)
    before = iio.imread(browser.screenshot()).astype(int)
    browser.click(x, 30 + y)
    browser.evaluate("document.getElementById('close').click()")
    browser.mouse("mouseMoved", 5, 5)
    browser.settle()
    still = iio.imread(browser.screenshot()).astype(int)
    browser.drag((x, y), (x + 150, y + 40))
    browser.mouse("mouseMoved", 5, 5)
    browser.settle()
    after = iio.imread(browser.screenshot()).astype(int)
    inside = np.s_[int(y) - 150 : int(y) + 150, int(x) - 250 : int(x) + 250, :3]
    assert np.abs(still - before)[inside].max(-1).astype(bool).mean() < 0.02
    assert np.abs(after - before)[inside].max(-1).astype(bool).mean() > 0.05
    assert browser.complaints == []


def test_a_click_on_a_camera_shows_its_picture_and_numbers(browser: Chromium) -> None:
    browser.resize(1280, 900, "light")
    view_middle(browser)
    x, y, name = browser.evaluate(CAMERA_SPOT)
    browser.click(x, y)
    assert browser.evaluate("document.getElementById('card').hidden") is False
    assert browser.evaluate("document.getElementById('card-name').textContent") == name
    said = browser.evaluate("document.getElementById('card-facts').textContent")
    assert "of its cells" in said or said == "held by keypoints alone"
    assert browser.evaluate("document.getElementById('card-picture').naturalWidth") > 50
    browser.evaluate("document.getElementById('close').click()")
    assert browser.evaluate("document.getElementById('card').hidden") is True
