# SPDX-License-Identifier: BSD-3-Clause
"""Follow every internal link of the built pages: ``python docs/check_links.py docs/_build/html``.

Sphinx warns about references it cannot resolve; this finds what it does not look at, such as plain links to files and
anchors. Links to other hosts are left alone: continuous integration has no network.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Anchors and links of one page."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Note what a tag names and where it points."""
        attrs = dict(attrs)
        self.anchors.update(attrs[key] for key in ("id", "name") if attrs.get(key))
        key = {"a": "href", "link": "href", "img": "src", "script": "src"}.get(tag)
        if key and attrs.get(key):
            self.links.add(attrs[key])


def broken_links(root):
    """Return (page, link) for every internal link without a target."""
    pages = {path.resolve(): Page(path) for path in sorted(Path(root).rglob("*.html")) if "_static" not in path.parts}
    broken = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[target].anchors if target in pages else None
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and known is not None and anchor not in known):
                broken.append((path.relative_to(Path(root).resolve()), link))
    return broken


if __name__ == "__main__":
    found = broken_links(sys.argv[1])
    for page, link in found:
        print(f"{page}: no target for {link}")
    sys.exit(1 if found else 0)
