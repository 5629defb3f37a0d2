"""Provenance: what marks and signatures cost, and whether they arrive."""
