"""Reports: `plots` draws pictures of results, `html` writes one page that holds them all."""

from lengthwise.report import backend  # noqa: F401  # before any other import of matplotlib
