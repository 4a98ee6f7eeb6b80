"""Whether machines are fit for a sweep: what is looked at on each, what is wrong with it, and what would mend it."""
