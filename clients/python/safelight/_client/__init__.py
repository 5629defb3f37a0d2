"""The clients, their connections and their generations."""
