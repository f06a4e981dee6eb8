"""Sphinx settings."""

from lengthwise.version import __version__

project = "lengthwise"
release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
myst_heading_anchors = 3
nb_execution_mode = "force"  # what a page shows is what this version does
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds for a cell, on a machine with other work
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]
suppress_warnings = ["toc.not_included"]  # tables, to which pages link
