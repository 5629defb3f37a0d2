"""Fleet: engines on other machines, and fronts that share their generations."""
