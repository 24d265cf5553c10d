"""The site's configuration: see https://www.sphinx-doc.org/en/master/usage/configuration.html."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from pygments.lexer import RegexLexer
from pygments.token import Comment, Keyword, String, Text, Whitespace
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from flask_uwsgi_websocket import __version__  # noqa: E402

project = "Flask-uWSGI-WebSocket"
author = "the authors of Flask-uWSGI-WebSocket"
version = release = __version__
copyright = author

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosectionlabel", "sphinx_copybutton"]
exclude_patterns = ["_build", "deploy"]
templates_path: list[str] = []

# What of other packages a signature names has no page here, and without the internet no link.
nitpick_ignore_regex = [("py:.*", r"(?!flask_uwsgi_websocket).*")]

# In docstrings `this` is code.
default_role = "code"

# Titles are labels: :ref:`rooms:Several machines`. In two pages they repeat.
autosectionlabel_prefix_document = True
autosectionlabel_maxdepth = 3
suppress_warnings = ["autosectionlabel.changes", "autosectionlabel.benchmarks"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"Flask-uWSGI-WebSocket {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

# Commands are copied without their prompt and their output.
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"
copybutton_here_doc_delimiter = "EOF"


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


def setup(app: Sphinx) -> None:
    """Teach Sphinx the languages of our code blocks that Pygments does not know."""
    for language in ("haproxy", "caddyfile"):
        app.add_lexer(language, WordsLexer)
