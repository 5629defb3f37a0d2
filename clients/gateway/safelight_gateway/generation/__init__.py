"""Generation: one request for images, and its run on the service."""
