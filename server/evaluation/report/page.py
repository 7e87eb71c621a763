"""The HTML page: everything in one file."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from server.evaluation.report.document import KINDS
from server.evaluation.report.plots import Plot
from server.evaluation.report.published import NOTE, published
from server.evaluation.report.results import Results


def page(results: Results, plots: Sequence[Plot]) -> str:
    """HTML with the plots in it and the tables of all files."""
    loader = PackageLoader("server.evaluation.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return environment.get_template("page.html.jinja").render(
        folder=results.folder,
        plots=plots,
        sections=results.sections(KINDS),
        note=NOTE,
        published=published(results),
        missing=results.missing(KINDS),
        others=results.others(KINDS),
    )
