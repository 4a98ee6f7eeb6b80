"""Tables as people have them, read for every door alike: `raysplit import`, `fit`, `observe`, `compare`, `replay`."""

from raysplit.tables.objects import JSON_SUFFIXES, read_objects

__all__ = ["JSON_SUFFIXES", "read_objects"]
