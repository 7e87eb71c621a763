"""One page and one document from the JSON files in ``benchmarks/results``; no figure in them is typed."""

from server.evaluation.report.document import document
from server.evaluation.report.page import page
from server.evaluation.report.plots import plots
from server.evaluation.report.results import Results

__all__ = ["Results", "document", "page", "plots"]
