"""Gathers the pages of `make docs`: the READMEs from the front page on, with the files that they show or link to."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is reached by links; each file has the address that it has in the repository."""
    waiting, found = [ROOT / "README.md"], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path), inclusion=InclusionLevel.INCLUDED))
            waiting += [target for _, target in linked(path.read_text("utf-8"), path)] if path.suffix == ".md" else []
    icon = str(ROOT / "service" / "explorer" / "icon.svg")
    files.append(File.generated(config, "icon.svg", abs_src_path=icon))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A folder is named by a link to its README, or without a link where it has none."""
    path = Path(page.file.abs_src_path or "")
    for link, target in linked(markdown, path):
        if (target / "README.md").is_file():
            markdown = markdown.replace(link[0], f"[{link[1]}]({link[2].rstrip('/')}/README.md{link[3] or ''})")
        elif target.is_dir():
            markdown = markdown.replace(link[0], link[1])
    return markdown


def linked(markdown: str, path: Path) -> list[tuple[re.Match[str], Path]]:
    """The links of a page of the repository to its files and folders."""
    return [(link, (path.parent / link[2]).resolve()) for link in LINK.finditer(markdown) if "://" not in link[2]]
