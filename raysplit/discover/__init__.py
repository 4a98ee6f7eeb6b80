"""Unlabelled documents in, domains out: features of text, balanced clusters, their names, and the page of them."""
