"""A sweep on machines that fail and cost money, played in seconds, to ask what a cluster of another kind would do."""
