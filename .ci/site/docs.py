"""Gathers the pages of `make docs`: those of `pages`, the READMEs from the front page on, and what both link to.

Links are written as they lead in the repository; here they are rewritten to the addresses of the site, where `pages`
is its root beside the repository's own folders. What a block of Python writes as a picture or a page is shown below it,
as draw.py has drawn it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = Path(__file__).parent / "pages"
PICTURES = ROOT / "build" / "pictures"
DRAWN = ("tutorial", "gallery")  # pages that draw.py runs, each in a folder of its name
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WRITTEN = re.compile(r'\("([\w-]+\.(?:svg|html))"\)')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is reached by links from the front page and from `pages`, and the pictures that are drawn."""
    waiting, found = [ROOT / "README.md", *PAGES.rglob("*.md")], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            if not path.is_relative_to(PAGES):
                add(path, address(path), files, config)
            waiting += [target for _, target in linked(path.read_text("utf-8"), path)] if path.suffix == ".md" else []
    for path in (path for kind in ("svg", "html") for path in PICTURES.glob(f"*/*.{kind}")):
        add(path, path.relative_to(PICTURES).as_posix(), files, config)
    add(ROOT / "service" / "explorer" / "icon.svg", "icon.svg", files, config)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links lead to the site's addresses: to a folder's README, or nowhere where a folder has none."""
    for link, target in linked(markdown, Path(page.file.abs_src_path or "")):
        target = target / "README.md" if (target / "README.md").is_file() else target
        to = os.path.relpath(address(target), Path(page.file.src_uri).parent)
        markdown = markdown.replace(link[0], link[1] if target.is_dir() else f"[{link[1]}]({to}{link[3] or ''})")
    if page.file.src_uri.startswith(DRAWN):
        markdown = BLOCK.sub(lambda block: block[0] + show(block[1], page), markdown)
    return markdown


def show(code: str, page: Page) -> str:
    """What stands below lines: the picture that they write, or the page in a frame, and a link to it."""
    shown, folder = "", Path(page.file.src_uri).with_suffix("").parts[0]
    for name in WRITTEN.findall(code):
        to = os.path.relpath(f"{folder}/{name}", Path(page.file.src_uri).parent)
        if name.endswith(".svg"):
            shown += f"\n\n![{name}]({to})"
        else:
            source = "../" * page.file.url.count("/") + f"{folder}/{name}"
            shown += f'\n\n<iframe src="{source}" title="{name}" loading="lazy"></iframe>\n\n[{name}]({to})'
    return shown


def add(path: Path, to: str, files: Files, config: MkDocsConfig) -> None:
    """Adds a file to the site."""
    files.append(File.generated(config, to, abs_src_path=str(path), inclusion=InclusionLevel.INCLUDED))


def address(path: Path) -> str:
    """Where a file of the repository stands in the site."""
    return path.relative_to(PAGES if path.is_relative_to(PAGES) else ROOT).as_posix()


def linked(markdown: str, path: Path) -> list[tuple[re.Match[str], Path]]:
    """The links of a page to files and folders of the repository."""
    found = [(link, (path.parent / link[2]).resolve()) for link in LINK.finditer(markdown) if "://" not in link[2]]
    return [(link, target) for link, target in found if target.is_relative_to(ROOT)]
