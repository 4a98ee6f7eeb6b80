"""`python -m raysplit`."""

from raysplit.cli.main import run

if __name__ == "__main__":  # a process that is spawned imports this module by another name
    run()
