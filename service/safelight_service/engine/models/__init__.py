"""Models: load them, keep them within a memory budget, identify them by their contents."""
