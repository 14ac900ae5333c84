"""The documentation site: `python -m sphinx -W -b html docs docs/_build/html`."""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

import bptt_jax  # noqa: E402

project = "bptt_jax"
author = copyright = "The bptt_jax authors"
version = release = bptt_jax.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "myst_nb",
    "docstrings",  # ours read as plain text, not as reStructuredText
    "formulas",  # TeX to MathML, so that no script is loaded from elsewhere
    "pages",  # writes the pages of rooms, experiments, benchmarks, notebooks
]
exclude_patterns = ["_build", "_extensions"]

nb_merge_streams = True
nb_execution_mode = "off"  # the tests run the notebooks; their outputs are committed
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # a notebook may begin below the first level

autosummary_generate = False
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "member-order": "bysource",
    "no-value": True,
}
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the docstrings give shapes, which types do not
napoleon_numpy_docstring = False
napoleon_use_rtype = False
maximum_signature_line_length = 78
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "bptt_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "native"
