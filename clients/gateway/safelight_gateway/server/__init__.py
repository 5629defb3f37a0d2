"""The HTTP server: uvicorn with bounds on connections, time, memory and log lines."""
