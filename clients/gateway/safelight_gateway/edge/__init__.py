"""The edge: HTTP requests as calls, and what holds for every response."""
