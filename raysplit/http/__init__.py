"""The live law over HTTP, and its page."""
