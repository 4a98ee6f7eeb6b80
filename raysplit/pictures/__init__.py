"""Pictures as Vega-Lite specifications: each is written once, and drawn by the report and by the live page."""

from raysplit.pictures.curve import curve_picture
from raysplit.pictures.path import path_picture
from raysplit.pictures.tree import tree_picture

__all__ = ["curve_picture", "path_picture", "tree_picture"]
