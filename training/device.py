"""The device that training runs on, and the precision that is quick there."""

import torch


def best_device() -> torch.device:
    """The graphics card where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """Brain floats where they are quick: on a card, and on processors with AMX.

    Other processors only emulate them, at a third of the speed of single precision.
    """
    is_quick = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=is_quick)
