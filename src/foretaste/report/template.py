"""How a page is made: the templates, what they can call, and the charts they show."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from foretaste.report import wording


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart with its caption and, for those who cannot see it, what it shows."""

    svg: Markup
    caption: str
    alt: str


def render(template: str, **values: object) -> str:
    """Return the HTML page that a template makes of these values; every text among them is escaped."""
    environment = Environment(
        loader=PackageLoader("foretaste.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {name: getattr(wording, name) for name in ("count", "share", "figure", "duration", "short")}
    environment.globals |= {"plural": wording.plural}
    return environment.get_template(template).render(values)
