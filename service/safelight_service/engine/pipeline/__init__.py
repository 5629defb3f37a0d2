"""Pipeline: its parameters, the proxies of its modules, and its images."""
