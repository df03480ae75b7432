"""Heartbeats of scheduled agents, reported to Convex."""
