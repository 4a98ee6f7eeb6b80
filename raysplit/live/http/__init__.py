"""The live law over HTTP, and its page."""

from raysplit.live.http.app import create_app
from raysplit.live.http.law import ServedLaw
from raysplit.live.http.server import Server, serve_in_thread

__all__ = ["ServedLaw", "Server", "create_app", "serve_in_thread"]
