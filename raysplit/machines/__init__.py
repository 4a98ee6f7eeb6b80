"""The machines of a sweep: whether they are fit for it, and a sweep handed to them from outside."""
