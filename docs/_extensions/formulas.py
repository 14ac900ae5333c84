"""Formulas as MathML, which browsers draw by themselves.

Sphinx's own way loads MathJax from a server; a site should work where there is no network.
"""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)


def mathml(node, as_block: bool) -> str:
    try:
        return tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        logger.warning("%s: %s", node.astext(), error, location=node)
        return f"<code>{node.astext()}</code>"


def inline(translator, node):
    translator.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def block(translator, node):
    translator.body.append('<div class="math">')
    translator.body.append(mathml(node, as_block=True))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("config-inited", choose, priority=900)
    return dict(parallel_read_safe=True, parallel_write_safe=True)


def choose(app, config):
    del app
    config.html_math_renderer = "mathml"
