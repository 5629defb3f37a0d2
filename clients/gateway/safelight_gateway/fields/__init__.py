"""Fields: reads the bodies of all dialects into one `ImageRequest`."""
