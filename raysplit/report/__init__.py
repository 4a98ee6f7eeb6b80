"""What a run has found, as a page and as figures for a paper."""

from raysplit.report.write import write_report

__all__ = ["write_report"]
