"""What a run has found, as a page and as figures for a paper."""

from raysplit.report.write import draw_learning_rate, write_report

__all__ = ["draw_learning_rate", "write_report"]
