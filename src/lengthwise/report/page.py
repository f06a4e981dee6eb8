"""What pages share: one file that needs no network and no script, its pictures and its numbers inlined."""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from pydantic_core import to_json


def render(template: str, *, data: Any, **values: Any) -> str:
    """A page from a template beside this file; what it is given is escaped.

    Args:
        data: the numbers behind the page, JSON values.
        values: what else the template names.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    here = files("lengthwise.report")
    inlined = htmlsafe_json_dumps(
        data,
        # JSON has no numbers that are infinite or none.
        dumps=lambda value: to_json(value, inf_nan_mode="null").decode(),
    )
    style = (here / "style.css").read_text("utf-8").rstrip()
    source = (here / template).read_text("utf-8")
    return environment.from_string(source).render(data=inlined, style=style, **values)


def picture(
    path: Path, draw: Callable[[Path], object], alt: str, caption: str, wide: bool = False
) -> dict[str, Any]:
    """What the page shows of a picture that `draw` writes into a PNG file, inlined.

    Args:
        draw: writes it.
        alt: what it shows, for those who do not see it.
        caption: what to see in it.
        wide: whether it needs a wide screen to be read.
    """
    draw(path)
    encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    source = f"data:image/png;base64,{encoded}"
    return {"source": source, "alt": alt, "caption": caption, "wide": wide}
