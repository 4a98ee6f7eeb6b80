"""What the site does beyond mkdocs: its navigation is the index, and files that pages link to come along.

On GitHub a page links to `../benchmarks/...` or `../search_spaces`; the site has no such folders. So each of those
files is copied below `repository/`, and a folder becomes a list of its files.
"""

import re
from pathlib import Path
from posixpath import normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"(\]\()(\.\./[^)#\s]+)")
"""One that leaves docs/; pages all lie in that folder itself."""
_TITLED = re.compile(r"\[([^\]]+)\]\(([\w-]+\.md)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Sections and pages in the order of the index; a page is where its first cell or item links to it."""
    index = Path(config.docs_dir, "README.md").read_text(encoding="utf-8")
    nav: list[dict[str, object]] = [{"Overview": "README.md"}]
    for section in index.split("\n## ")[1:]:
        title, _, rows = section.partition("\n")
        firsts = [_TITLED.match(row.lstrip("|- ")) for row in rows.splitlines()]
        nav.append({title: [{first[1]: first[2]} for first in firsts if first]})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    repository = Path(config.docs_dir).parent
    for page in files.documentation_pages():
        for _, link in _LINK.findall(page.content_string):
            target = repository / link.removeprefix("../")
            _bring(target, repository, files, config)
    return files


def _bring(target: Path, repository: Path, files: Files, config: MkDocsConfig) -> None:
    if not target.exists():  # mkdocs warns of it
        return
    if not target.is_dir():
        _add(_place(target, repository), target.read_bytes(), files, config)
        return
    inner = sorted(path for path in target.iterdir() if path.is_file())
    listed = "".join(f'<li><a href="{path.name}">{path.name}</a></li>' for path in inner)
    _add(_place(target, repository) + "/index.html", f"<ul>{listed}</ul>".encode(), files, config)
    for path in inner:
        _add(_place(path, repository), path.read_bytes(), files, config)


def _place(path: Path, repository: Path) -> str:
    """Where a file lies in the site; Markdown as the text that it is."""
    place = f"repository/{path.resolve().relative_to(repository).as_posix()}"
    return place + ".txt" if path.suffix == ".md" else place


def _add(place: str, content: bytes, files: Files, config: MkDocsConfig) -> None:
    if files.get_file_from_path(place) is None:
        files.append(File.generated(config, place, content=content))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    repository = Path(config.docs_dir).parent

    def inside(match: re.Match[str]) -> str:
        target = repository / normpath(match[2].removeprefix("../"))
        place = _place(target, repository)
        return match[1] + (f"{place}/index.html" if target.is_dir() else place)

    return _LINK.sub(inside, markdown)
