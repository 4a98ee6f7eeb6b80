"""The folder of a run: where things lie in it, and which command holds it."""
