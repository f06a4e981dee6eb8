"""Sphinx settings."""

from lengthwise.version import __version__

project = "lengthwise"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]
suppress_warnings = ["toc.not_included"]  # tables, to which pages link
