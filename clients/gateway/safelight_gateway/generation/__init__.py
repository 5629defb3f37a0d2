"""Generation: requests for images, and their execution by the service."""
