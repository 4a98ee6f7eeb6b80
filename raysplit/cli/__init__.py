"""The command line: parses, wires, prints. Rooms are imported by the command that needs them, so that help is quick."""

from raysplit.cli.main import main

__all__ = ["main"]
