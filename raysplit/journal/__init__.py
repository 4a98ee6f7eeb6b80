"""The store of records: what a sweep remembers, on a disk or in an object store."""

from raysplit.journal.format import Record
from raysplit.journal.journal import Journal, ReadJournal, has_journal, read_journal, without_collection

__all__ = ["Journal", "ReadJournal", "Record", "has_journal", "read_journal", "without_collection"]
