"""`python -m raysplit`."""

from raysplit.cli.main import run

run()
