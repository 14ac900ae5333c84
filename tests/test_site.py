"""The documentation site is built without a warning, and nothing on it is missing."""

import html.parser
import inspect
import pathlib
import subprocess
import sys
import urllib.parse
from typing import NamedTuple

import pytest

import bptt_jax

for needed in ("sphinx", "myst_nb", "furo"):
    pytest.importorskip(needed)
pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parent.parent
EXPERIMENTS = sorted(p.parent for p in (ROOT / "experiments").glob("*/README.md"))


class Page(NamedTuple):
    links: list[str]
    images: list[str]
    ids: set[str]
    tags: list[str]
    loaded: list[str]  # scripts and styles


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.page = Page([], [], set(), [], [])

    def handle_starttag(self, tag, attrs):
        has = {name: value or "" for name, value in attrs}
        self.page.tags.append(tag)
        if "id" in has:
            self.page.ids.add(has["id"])
        if tag == "a" and "href" in has:
            self.page.links.append(has["href"])
        if tag == "img":
            self.page.images.append(has["src"])
        if tag == "script" and "src" in has:
            self.page.loaded.append(has["src"])
        if tag == "link" and has.get("rel") == "stylesheet":
            self.page.loaded.append(has["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[pathlib.Path, Page]:
    out = tmp_path_factory.mktemp("site").resolve()
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html",
         "-d", out / "doctrees", ROOT / "docs", out / "html"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for path in (out / "html").rglob("*.html"):
        reader = Reader()
        reader.feed(path.read_text())
        found[path] = reader.page
    return found


def page(site, name: str) -> Page:
    (found,) = (
        p for path, p in site.items() if path.as_posix().endswith(f"/html/{name}")
    )
    return found


def missing(path: pathlib.Path, target: str, site) -> bool:
    """Whether an address on the page at `path` leads nowhere."""
    parts = urllib.parse.urlsplit(target)
    if parts.scheme or parts.netloc:
        return False
    there = (path.parent / urllib.parse.unquote(parts.path)).resolve()
    there = path if not parts.path else there
    if not there.is_file():
        return True
    fragment = urllib.parse.unquote(parts.fragment)
    return bool(fragment) and there in site and fragment not in site[there].ids


def test_links_and_images_lead_somewhere(site):
    lost = [
        (path.name, target)
        for path, found in site.items()
        for target in [*found.links, *found.images, *found.loaded]
        if missing(path, target, site)
    ]
    assert len(site) > 20
    assert not lost


def test_what_leads_nowhere_is_noticed(site):
    path = next(path for path in site if path.name == "tour.html")
    assert missing(path, "nowhere.html", site)
    assert missing(path, "index.html#nowhere", site)
    assert not missing(path, "index.html", site)


def test_nothing_is_loaded_from_elsewhere(site):
    for path, found in site.items():
        for source in [*found.loaded, *found.images]:
            assert not urllib.parse.urlsplit(source).netloc, (path, source)


@pytest.mark.parametrize("name", ["tour", "choosing-an-unroll"])
def test_formulas_are_drawn(site, name):
    text = (ROOT / "docs" / f"{name}.md").read_text()
    assert page(site, f"{name}.html").tags.count("math") >= text.count("$$") // 2 > 0


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=lambda p: p.name)
def test_experiments_show_their_figures(site, folder):
    figures = {path.name for path in folder.glob("*.png")}
    shown = page(site, f"experiments/{folder.name}.html").images
    assert figures
    assert figures <= {source.rsplit("/", 1)[-1] for source in shown}


def test_notebooks_show_what_was_committed(site):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        found = page(site, f"notebooks/{path.stem}.html")
        assert len(found.images) >= path.read_text().count('"image/png"') > 0


@pytest.mark.parametrize("name", sorted({"types", *bptt_jax.__all__}))
def test_every_public_name_is_on_a_page(site, name):
    room = getattr(bptt_jax, name)
    if hasattr(room, "__path__") or hasattr(room, "__file__"):
        ids = page(site, f"api/{name}.html").ids
        defined = [n for n, v in vars(room).items() if not n.startswith("_")
                   and getattr(v, "__module__", None) == room.__name__]  # fmt: skip
        public = getattr(room, "__all__", defined)
        inner = [n for n in public if inspect.ismodule(getattr(room, n))]
        names = [f"bptt_jax.{name}.{n}" for n in public if n not in inner]
        names += [f"module-bptt_jax.{name}.{n}" for n in inner]
    else:
        ids, names = page(site, "api/types.html").ids, [f"bptt_jax.types.{name}"]
    assert names
    assert not set(names) - ids
