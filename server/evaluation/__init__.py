"""Measuring the guard on public benchmarks, whose data stay outside the repository."""
