"""The site's configuration: see https://www.sphinx-doc.org/en/master/usage/configuration.html."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from click import Context
from docutils import nodes
from pygments.lexer import RegexLexer
from pygments.token import Comment, Keyword, String, Text, Whitespace
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from flask_uwsgi_websocket import __version__  # noqa: E402
from flask_uwsgi_websocket.commands.cli import websocket  # noqa: E402

project = "Flask-uWSGI-WebSocket"
author = "the authors of Flask-uWSGI-WebSocket"
version = release = __version__
copyright = author

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosectionlabel"]
exclude_patterns = ["_build", "deploy"]
templates_path: list[str] = []

# What signatures name and no page tells of: classes of other projects, to which no link leads
# without the internet; type variables; and our own inner types.
nitpick_ignore_regex = [
    ("py:mod", ".*"),
    ("py:.*", r"(collections|flask|os|typing|werkzeug)\..*"),
    ("py:class", r"Flask|AppContext|Blueprint|RequestContext|(Test)?Response|WSGIEnvironment"),
    ("py:class", r"(.*\.)?(C|Done|F|T|_Self|Connection|UpgradeRequest|BackplaneOptions)"),
    ("py:class", r"StatsCollector"),
    ("py:class", r"flask_uwsgi_websocket\.(codec|clients|rooms)\..*"),
]

# In docstrings `this` is code.
default_role = "code"

# Titles are labels: :ref:`rooms:Several machines`. In two pages they repeat.
autosectionlabel_prefix_document = True
autosectionlabel_maxdepth = 3
suppress_warnings = ["autosectionlabel.changes", "autosectionlabel.benchmarks"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

# Of the reader's own machine, and of examples.
linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1|([\w-]+\.)*example(\.\w+)?)([:/].*)?$"]

html_theme = "furo"
pygments_dark_style = "a11y-dark"
html_title = f"Flask-uWSGI-WebSocket {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False


class WordsLexer(RegexLexer):
    """For configuration languages that Pygments does not know: comments, strings, words."""

    tokens: ClassVar = {
        "root": [
            (r"#.*", Comment),
            (r'"[^"\n]*"', String),
            (r"^[ \t]*[\w-]+", Keyword),
            (r"[^\s#\"]+", Text),
            (r"\s+", Whitespace),
            (r'"', Text),
        ]
    }


class CommandHelp(SphinxDirective):
    """What a command answers to ``--help``: ``.. command-help:: doctor``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        context = Context(websocket, info_name="flask websocket", terminal_width=78)
        command = websocket.get_command(context, name)
        if command is None:
            raise self.error(f"there is no command {name}")
        text = command.get_help(Context(command, parent=context, info_name=name))
        return [nodes.literal_block(text, text, language="text")]


def mark_long_words(app: Sphinx, tree: nodes.document) -> None:
    """Mark code that is wider than a phone, which site.css lets break there."""
    for literal in tree.findall(nodes.literal):
        if any(len(word) > 38 for word in literal.astext().split()):
            literal["classes"].append("long")


def hide_type_variable(
    app: Sphinx,
    what: str,
    name: str,
    member: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Leave out that a method returns `Done`, which is nothing, or a coroutine of it."""
    return signature, None if returns == "Done" else returns


def setup(app: Sphinx) -> None:
    """Teach Sphinx what our pages need."""
    app.add_directive("command-help", CommandHelp)
    app.connect("autodoc-process-signature", hide_type_variable)
    app.connect("doctree-read", mark_long_words)
    for language in ("haproxy", "caddyfile"):
        app.add_lexer(language, WordsLexer)
