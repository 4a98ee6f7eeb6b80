"""The report of a finished sweep: a page, and figures for a paper."""

from raysplit.report.write import draw_learning_rate, write_report

__all__ = ["draw_learning_rate", "write_report"]
