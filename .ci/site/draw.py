"""Draws the pictures of the site into build/pictures, by running the lines of the pages that show them."""

import os
import re
from pathlib import Path

SITE = Path(__file__).parent
ROOT = SITE.parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def draw(pages: list[str], folder: Path) -> None:
    """Runs the Python of some pages in a folder, into which they write.

    The folder links to what pages read only while it is drawn: hatchling follows links when it packs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    links = {folder / Path(file).name: ROOT / file for file in ("service", "tests", "tests/examples/load.csv.gz")}
    os.chdir(folder)
    try:
        for link, file in links.items():
            link.unlink(missing_ok=True)
            link.symlink_to(file)
        for page in pages:
            exec("".join(BLOCK.findall((SITE / "pages" / page).read_text("utf-8"))), {})
    finally:
        for link in links:
            link.unlink()


if __name__ == "__main__":
    steps = sorted(f"tutorial/{path.name}" for path in (SITE / "pages" / "tutorial").glob("[1-5]-*.md"))
    draw(steps, ROOT / "build" / "pictures" / "tutorial")
    draw(["gallery.md"], ROOT / "build" / "pictures" / "gallery")
