"""The edge: parts of HTTP that all routes share."""
