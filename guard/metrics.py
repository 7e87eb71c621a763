"""Prometheus metrics, served beside vLLM's on ``/metrics``. Labels never carry target or tenant text."""

from prometheus_client import Counter, Histogram

REQUESTS = Counter("lethe:requests_total", "Requests through the door, by how they were served.", ["action"])
VERDICTS = Counter("lethe:verdicts_total", "Findings that reached their threshold.", ["guard", "action", "mode"])
UNAVAILABLE = Counter("lethe:guard_unavailable_total", "Times a guard could not judge.", ["guard", "on_error"])
DETECTOR_SECONDS = Histogram(
    "lethe:detector_seconds",
    "Time of one look at a prompt by the detectors of text.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
HOLD_SECONDS = Histogram(
    "lethe:verdict_wait_seconds",
    "How long a first token that was ready waited for the verdict.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.5),
)
CLAUSE_SECONDS = Histogram(
    "lethe:clause_seconds",
    "How long a clause of an output took to be compared with protected statements.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
UNDONE = Counter("lethe:clamps_undone_total", "Requests served again because they were clamped for nothing.")
ROLLBACKS = Counter("lethe:rollbacks_total", "Clauses taken back, by what followed.", ["outcome"])
