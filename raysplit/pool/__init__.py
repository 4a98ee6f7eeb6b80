"""Which lane gets which task on which machines: pure, told of nodes and the time, so any story can be played to it."""
