"""The documentation site is built without a warning, and nothing on it is missing."""

import html.parser
import importlib.util
import inspect
import json
import pathlib
import re
import subprocess
import sys
import urllib.parse
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

import bptt_jax

snowballstemmer = pytest.importorskip("snowballstemmer")
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
    prose: list[str]  # text that is neither code nor a signature
    defaults: list[str]  # of arguments, as signatures have them
    navigation: list[str]  # names of pages beside every page


PROSE_IS_NOT = {"code", "pre", "math", "dt", "script", "style", "nav", "head"}
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr", "source", "path"}


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.page = Page([], [], set(), [], [], [], [], [])
        self.open: list[tuple[str, str]] = []  # tags, and their classes

    def handle_starttag(self, tag, attrs):
        has = {name: value or "" for name, value in attrs}
        self.page.tags.append(tag)
        if tag not in VOID:
            self.open.append((tag, has.get("class", "")))
        if "default_value" in has.get("class", ""):
            self.page.defaults.append("")
        if self.inside("sidebar-tree") and tag == "a":
            self.page.navigation.append("")
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

    def inside(self, name: str) -> bool:
        return any(name in classes.split() for _, classes in self.open)

    def handle_endtag(self, tag):
        while self.open and any(t == tag for t, _ in self.open):
            if self.open.pop()[0] == tag:
                break

    def handle_data(self, data):
        if self.inside("default_value"):
            self.page.defaults[-1] += data
        if self.inside("sidebar-tree") and any(t == "a" for t, _ in self.open):
            self.page.navigation[-1] += data
        tags = {tag for tag, _ in self.open}
        if "article" in tags and not tags & PROSE_IS_NOT:
            self.page.prose.append(data)


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


def is_elsewhere(name: str) -> bool:
    """Records of one room that another lets out, too, are on the first one's page."""
    _, room, own = name.split(".")
    found = getattr(getattr(bptt_jax, room), own)
    if not inspect.isclass(found):
        return False
    made = found.__module__.split(".")[1]
    return made != room and own in getattr(getattr(bptt_jax, made), "__all__", ())


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
        names = [n for n in names if not is_elsewhere(n)]
        names += [f"module-bptt_jax.{name}.{n}" for n in inner]
    else:
        of = room.__module__.split(".")[1]  # the room it is also let out of
        ids, names = page(site, f"api/{of}.html").ids, [f"bptt_jax.{of}.{name}"]
    assert names
    assert not set(names) - ids


API = sorted({"types", *bptt_jax.__all__} - {"Side"})


def rooms() -> list[str]:
    return [n for n in API if inspect.ismodule(getattr(bptt_jax, n))]


def test_emphasis_is_no_asterisk(site):
    marks = [(n, text) for n in rooms() for text in page(site, f"api/{n}.html").prose
             if "*" in text or "`" in text]  # fmt: skip
    assert not marks
    assert "before" in page(site, "api/cells.html").prose  # a piece of its own


def test_tables_say_what_a_name_is(site):
    for name in rooms():
        assert "new empty dictionary" not in " ".join(
            page(site, f"api/{name}.html").prose
        )


def test_navigation_names_every_page_once(site):
    names = page(site, "index.html").navigation
    assert len(names) > 40
    assert sorted(set(names)) == sorted(names)


def test_default_values_can_be_typed(site):
    """Nothing private, and nothing that only Python's memory knows."""
    found = 0
    for name in rooms():
        room = getattr(bptt_jax, name)
        known = {n: getattr(bptt_jax, n) for n in bptt_jax.__all__} | vars(room)
        known |= dict(jax=jax, jnp=jnp, np=np, FrozenDict=FrozenDict, warnings=warnings)
        for text in page(site, f"api/{name}.html").defaults:
            assert not re.search(r"<|(?<!\w)_[a-z]", text), (name, text)
            eval(text, known)  # noqa: S307
            found += text != "..."
    assert found > 100


def test_initialisers_are_those_that_signatures_say():
    path = ROOT / "docs" / "_extensions" / "docstrings.py"
    spec = importlib.util.spec_from_file_location("docstrings", path)
    docstrings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docstrings)
    names = ("layers._time_distributed", "cells._indrnn", "cells._init")
    modules = [importlib.import_module(f"bptt_jax.{name}") for name in names]
    known = vars(modules[0]) | vars(modules[1]) | dict(_init=modules[2])
    for private, public in docstrings.INITIALISERS.items():
        ours = eval(private, known)  # noqa: S307
        theirs = eval(public, dict(jax=jax))  # noqa: S307
        drawn = [f(jax.random.key(0), (3, 3), jnp.float32) for f in (ours, theirs)]
        np.testing.assert_array_equal(*drawn)


def test_the_first_page_says_why(site):
    """With the README's own sentence and numbers."""
    readme = (ROOT / "README.md").read_text()
    shown = re.sub(r"\s+", " ", " ".join(page(site, "index.html").prose))
    bold = re.sub(r"\s+", " ", re.search(r"\*\*(.*?)\*\*", readme, re.DOTALL)[1])
    assert bold.split("`")[0].strip() in shown
    for name in ("memory", "peers"):
        table = re.search(rf"<!-- {name} -->(.*?)<!-- /{name} -->", readme, re.DOTALL)[
            1
        ]
        numbers = re.findall(r"\| (\d+\.\d+) ", table)
        assert len(numbers) > 2
        assert not set(numbers) - set(shown.split())
    links = page(site, "index.html").links
    assert {"flax.html", "diagnosing.html", "your-own-data.html"} <= set(links)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dataset", "your-own-data"),
        ("variable length", "your-own-data"),
        ("mini-batch", "your-own-data"),
        ("padding mask", "your-own-data"),
        ("csv classification", "your-own-data"),
        ("forecast", "your-own-data"),
        ("parquet csv", "your-own-data"),
        ("classification speaker", "notebooks/your_own_data"),
        ("read csv", "api/data"),
        ("time series", "your-own-data"),
        ("checkpoint resume", "api/train"),
        ("learning rate", "experiments/learning_rate_sweep"),
        ("gradient clipping", "api/layers"),
        ("bidirectional", "interop"),
        ("pytorch weights", "interop"),
        ("multiple gpus", "scaling"),
        ("truncated backpropagation", "choosing-an-unroll"),
        ("custom cell", "adding-a-cell"),
        ("frozen fine-tuning transfer learning", "recipes/frozen-parts"),
        ("echo state network reservoir computing", "recipes/reservoir"),
        ("irregularly sampled time series", "recipes/irregular-times"),
        ("scheduled sampling teacher forcing", "recipes/scheduled-sampling"),
        ("reinforcement learning policy gradient", "recipes/policy"),
        ("per-example gradients", "recipes/per-example-gradients"),
        ("differential privacy", "recipes/per-example-gradients"),
        ("meta-learning MAML", "recipes/maml"),
        ("weight decay mask", "recipes/weight-decay"),
        ("FSDP ZeRO sharded optimizer state", "recipes/fully-sharded"),
    ],
)
def test_search_finds(site, words, expected):
    """What Sphinx's script does: all words, by their stems, in texts or titles."""
    root = next(path.parent for path in site if path.name == "genindex.html")
    source = (root / "searchindex.js").read_text()
    index = json.loads(source.removeprefix("Search.setIndex(").removesuffix(")"))
    stem = snowballstemmer.stemmer("english").stemWord

    def pages(word: str) -> set[str]:
        hits = [index[kind].get(stem(word), []) for kind in ("terms", "titleterms")]
        each = [n for hit in hits for n in (hit if isinstance(hit, list) else [hit])]
        return {index["docnames"][n] for n in each}

    found = set.intersection(*(pages(w) for w in re.findall(r"\w+", words.lower())))
    assert expected in found
