"""The page in a real browser: nothing overlaps, on a phone as on a desk, in dark as in light."""

import json
import re
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import pytest
import records
from browser import BROWSER, QUIET
from sweep_tables import trial, write

from cliptune.report.comparison import comparison_section
from cliptune.report.page import page
from cliptune.report.runs import run_section
from cliptune.report.sweeps import sweep_section
from cliptune.report.trials import read_sweep

LOOK = """<script>
const faults = [], seen = {texts: 0, smallest: 99};
if (document.documentElement.scrollWidth > innerWidth) faults.push("the page is too wide");
for (const svg of document.querySelectorAll("svg")) {
  const name = svg.getAttribute("aria-label"), edge = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")];
  const boxes = texts.map(t => [t.textContent, t.getBoundingClientRect()]);
  boxes.forEach(([text, a], i) => {
    seen.texts += 1;
    seen.smallest = Math.min(seen.smallest, a.height);
    const beside = a.left < edge.left - 1 || a.right > edge.right + 1;
    if (beside || a.top < edge.top - 1 || a.bottom > edge.bottom + 1)
      faults.push(`${name}: ${text} is cut off`);
    for (const [other, b] of boxes.slice(i + 1)) {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 1 && high > 3) faults.push(`${name}: ${text} lies over ${other}`);
    }
  });
}
function luminance(color) {
  const [r, g, b] = color.match(/[0-9.]+/g).slice(0, 3).map(v => {
    v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
  return .2126 * r + .7152 * g + .0722 * b;
}
const style = getComputedStyle(document.querySelector("figure"));
const fill = getComputedStyle(document.querySelector("svg text")).fill;
const [a, b] = [luminance(fill), luminance(style.backgroundColor)].sort((x, y) => y - x);
seen.contrast = (a + .05) / (b + .05);
seen.dark = matchMedia("(prefers-color-scheme: dark)").matches;
seen.width = innerWidth;
parent.document.body.textContent = "FOUND" + JSON.stringify({faults, ...seen}) + "END";
</script></body>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here"),
]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run, two compared, and a sweep."""
    folder = tmp_path_factory.mktemp("pages")
    words = ["a word that is longer than its axis has room for", "great"]
    run = records.searched(folder / "run", task={"label_words": words})
    rows = [trial({"a.b": x}, s, 0.5 + s / 9, x) for x in (0.1, 0.2) for s in (0, 1)]
    sweep = read_sweep(write(folder / "sweep", rows, ["a.b"]))
    return page(
        [run_section(run), comparison_section([run, records.record()]), sweep_section(sweep)]
    )


def looked_at(html: str, folder: Path, width: int, *more: str) -> dict[str, Any]:
    """What the browser says of the page in a frame: its windows are no narrower than 500 pixels.

    The page's own policy would forbid to ask.
    """
    asking = escape(re.sub(r"<meta http-equiv[^>]*>", "", html).replace("</body>", LOOK))
    frame = f'<iframe srcdoc="{asking}" style="width: {width}px; height: 900px; border: 0">'
    (folder / "page.html").write_text(f"<meta charset=utf-8>{frame}", encoding="utf-8")
    words = [f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900", "--dump-dom"]
    command = [str(BROWSER), *QUIET, *words, *more, (folder / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (found,) = re.findall("FOUND(.*)END", done.stdout)
    answer: dict[str, Any] = json.loads(found)
    return answer


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [375, 768, 1280])
def test_all_of_the_page_can_be_read(width: int, dark: bool, html: str, tmp_path: Path) -> None:
    more = ["--blink-settings=preferredColorScheme=0"] if dark else []
    found = looked_at(html, tmp_path, width, *more)
    assert found["faults"] == []
    assert (found["width"], found["dark"]) == (width, dark)
    assert found["texts"] > 100
    assert found["smallest"] > 7  # pixels, of the numbers in the cells of a matrix
    assert found["contrast"] > 7
