"""Run the engine inside a test: jobs, loaded tiny models, a simulated GPU."""
