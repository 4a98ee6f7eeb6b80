"""Which lane gets which task on which machines: pure code, told of nodes and the time, so tests can play any events."""
