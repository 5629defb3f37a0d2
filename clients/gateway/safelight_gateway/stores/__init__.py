"""Stores: images and jobs that are kept between requests."""
