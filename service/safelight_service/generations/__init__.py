"""Generations: their life cycle, from admission to the last event."""
