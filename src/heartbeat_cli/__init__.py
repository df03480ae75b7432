"""Heartbeats of scheduled agents, reported to Convex."""

__version__ = "0.1.0"
