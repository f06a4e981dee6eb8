"""Objects that show themselves in a notebook."""

from __future__ import annotations


class Shown:
    """An object that `lengthwise.report.notebook`, imported only then, has a page of HTML for."""

    def _repr_html_(self) -> str:
        from lengthwise.report.notebook import html_of

        return html_of(self)
