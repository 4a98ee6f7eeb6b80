"""Evaluating models: tasks as items, items as requests, one table of scores, and arithmetic on it."""
