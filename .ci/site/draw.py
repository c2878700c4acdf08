"""Draws the pictures of the site into build/pictures, by running the lines of the pages that show them."""

import os
import re
from pathlib import Path

SITE = Path(__file__).parent
ROOT = SITE.parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def draw(pages: list[str], folder: Path) -> None:
    """Runs the Python of some pages in a folder, into which they write."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("service", "tests", "tests/examples/load.csv.gz"):
        link = folder / Path(file).name
        link.unlink(missing_ok=True)
        link.symlink_to(ROOT / file)
    os.chdir(folder)
    for page in pages:
        exec("".join(BLOCK.findall((SITE / "pages" / page).read_text("utf-8"))), {})


if __name__ == "__main__":
    steps = sorted(f"tutorial/{path.name}" for path in (SITE / "pages" / "tutorial").glob("[1-5]-*.md"))
    draw(steps, ROOT / "build" / "pictures" / "tutorial")
    draw(["gallery.md"], ROOT / "build" / "pictures" / "gallery")
