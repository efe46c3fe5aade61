"""Links of the README, of the docs and of what stands beside them lead somewhere in the repository."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md"]


def inline(page: Path) -> Iterator[Token]:
    """Yield the tokens of a page's text."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        yield from token.children or ()


def links(page: Path) -> list[str]:
    """Return where a page's links and pictures lead to, but for other sites."""
    targets = [str(token.attrs.get("href") or token.attrs.get("src") or "") for token in inline(page)]
    return [target for target in targets if target and not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    found, text = set(), ""
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "heading_open":
            text = ""
        elif token.type == "inline":
            text = "".join(child.content for child in token.children or ())
        elif token.type == "heading_close":
            found.add(re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page} links to {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page} links to {link}"


def test_links_are_found() -> None:
    assert "docs/gateway.md" in links(ROOT / "README.md")
    assert "exit-codes" in anchors(ROOT / "docs" / "commands.md")
