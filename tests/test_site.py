"""The docs as a site: every page in its menu, no link that leads nowhere, nothing from outside."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_every_page_stands_in_the_menu_once() -> None:
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = re.findall(r"'([\w-]+\.md)'", str(menu))
    assert sorted(pages) == sorted(file.name for file in (ROOT / "docs").glob("*.md"))


def test_pages_ask_for_nothing_from_outside(site: Path) -> None:
    pages = sorted(site.glob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?([^\"'\s>]+)", text)
        fetched += re.findall(r"<link[^>]*rel=[\"']?(?:stylesheet|preload|preconnect)[^>]*>", text)
        assert fetched
        outside = [one for one in fetched if re.search(r"(?:src=|href=|^)[\"']?(?:https?:)?//", one)]
        assert outside == [], page.name


def test_the_home_page_names_the_three_commands(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    home = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    first = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)[0]
    assert first in home, "README and the site's home page begin alike"
    assert 'href="data.html"' in text
