"""`python -m raysplit`."""

from raysplit.cli import main

main()
