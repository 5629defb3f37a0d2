"""Scenes: drawing, captioning and recognising coloured shapes."""
