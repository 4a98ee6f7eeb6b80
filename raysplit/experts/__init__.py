"""Experts in use: loaded on demand, chosen by a router, mixed token by token, served."""

from raysplit.experts.expert_set import ExpertSet, Route
from raysplit.experts.folders import ExpertFolder, Experts, read_experts
from raysplit.experts.generation import Piece, Sampling
from raysplit.experts.routing import ROUTERS, Routing

__all__ = ["ROUTERS", "ExpertFolder", "ExpertSet", "Experts", "Piece", "Route", "Routing", "Sampling", "read_experts"]
