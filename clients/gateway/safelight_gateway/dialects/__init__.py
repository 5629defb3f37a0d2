"""Dialects: each module translates one API to and from `ImageRequest`."""
