"""Mixed sizes: the requests that compare routers."""

ENGINES = 3
SIZES = ((256, 256), (384, 168), (168, 384), (320, 208), (208, 320), (296, 224))
"""Sizes of about as many pixels."""
STEPS = 20
STEP_S = 0.04
"""Time of a step of one image, alone."""
CALLERS = 36
"""Callers without a pause, which show what the engines make at most."""
LOAD = 0.7
"""Rate of the requests, relative to that."""
