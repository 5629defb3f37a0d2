"""Watermarks: whether invisible ones survive JPEG and halving, by libraries that need no download.

Half of the pictures are scenes such as the embedded model draws, half resemble photographs.

The libraries are not among the tools:
`pip install invisible-watermark==0.2.0 blind-watermark==0.4.4 onnxruntime==1.32.0`.
"""

import argparse
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from blind_watermark import WaterMark, bw_notes
from imwatermark import WatermarkDecoder, WatermarkEncoder

from benchmarks.harness.report import write_report
from training.scenes.render import render
from training.scenes.scene import (
    COLOURS,
    PLAIN,
    POSITIONS,
    RADII,
    SCENERIES,
    SHAPES,
    Scene,
    place,
)

MARKED, UNMARKED = 200, 1000
SLOW_UNMARKED = 100
"""Unmarked images for methods that take a second for each."""
SIDE_PX, QUALITY = 256, 80
GOAL, MAX_FALSE = 0.99, 1e-3
BITS = 32
KEY = np.random.default_rng(25).permutation([0, 1] * (BITS // 2))
Picture = np.ndarray[Any, np.dtype[np.uint8]]
"""Rows, columns, and the channels blue, green and red."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to mark pictures.

    Attributes:
        mark: Returns a picture with the bits of `KEY`.
        read: Returns the bits of a picture.
        is_slow: Whether it takes a second for a picture.
    """

    mark: Callable[[Picture], Picture]
    read: Callable[[Picture], Sequence[int]]
    is_slow: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares of pictures in which the mark was found, and seconds to mark one."""

    intact: float
    jpeg: float
    halved: float
    false: float
    mark_s: float

    @property
    def is_good(self) -> bool:
        """Whether the goals are met."""
        return min(self.jpeg, self.halved) >= GOAL and self.false <= MAX_FALSE


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--marked", type=int, default=MARKED)
    parser.add_argument("--unmarked", type=int, default=UNMARKED)
    arguments = parser.parse_args()
    bw_notes.close()
    WatermarkEncoder.loadModel()
    seeds = range(arguments.marked + arguments.unmarked)
    drawn = [make_picture(seed) if seed % 2 else draw_scene(seed) for seed in seeds]
    pictures, others = drawn[: arguments.marked], drawn[arguments.marked :]
    print(f"found if {threshold()} of {BITS} bits are right")
    report = {}
    for name, method in METHODS.items():
        figures = measure(method, pictures, others[: SLOW_UNMARKED if method.is_slow else None])
        report[name] = asdict(figures)
        print(
            f"{name:<32} intact {figures.intact:6.1%}, JPEG {figures.jpeg:6.1%}, "
            f"halved {figures.halved:6.1%}, false {figures.false:5.1%}, "
            f"{figures.mark_s * 1e3:5.0f} ms, goal {'met' if figures.is_good else 'MISSED'}",
            flush=True,
        )
    write_report("watermarks", report)


def measure(method: Method, pictures: Sequence[Picture], others: Sequence[Picture]) -> Figures:
    """Mark the pictures, change them, and look for the mark; look for it in others as well."""
    begun_at = time.perf_counter()
    marked = [method.mark(picture) for picture in pictures]
    mark_s = (time.perf_counter() - begun_at) / len(pictures)

    def share(changed: Sequence[Picture]) -> float:
        return sum(is_found(method, picture) for picture in changed) / len(changed)

    return Figures(
        share(marked),
        share([compress(picture) for picture in marked]),
        share([halve(picture) for picture in marked]),
        share(others),
        mark_s,
    )


def is_found(method: Method, picture: Picture) -> bool:
    """Look for the mark in a picture, scaled to the size that was marked."""
    size = (SIDE_PX, SIDE_PX)
    scaled = as_picture(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))
    return int((np.asarray(method.read(scaled)) == KEY).sum()) >= threshold()


def threshold() -> int:
    """Return the number of right bits that chance reaches in at most `MAX_FALSE` of pictures."""
    tail = 0
    for count in range(BITS, 0, -1):
        tail += math.comb(BITS, count)
        if tail / 2**BITS > MAX_FALSE:
            return count + 1
    raise AssertionError


def compress(picture: Picture) -> Picture:
    """Return a picture after JPEG."""
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return as_picture(cv2.imdecode(data, cv2.IMREAD_COLOR))


def halve(picture: Picture) -> Picture:
    """Return a picture of half the width and height."""
    return as_picture(cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


def as_picture(values: Any) -> Picture:
    """Return values as pixels."""
    pixels: Picture = np.clip(np.round(values), 0, 255).astype(np.uint8)
    return pixels


def draw_scene(seed: int) -> Picture:
    """Return a scene such as those that the embedded model draws."""
    source = random.Random(seed)
    thing = place(
        source.choice(SHAPES),
        source.choice(list(COLOURS)),
        source.choice(list(RADII)),
        source.choice(list(POSITIONS)),
        SIDE_PX,
        SIDE_PX,
        source,
    )
    background = source.choice([*PLAIN, *SCENERIES])
    [drawn] = render([Scene((thing,), None, background, SIDE_PX, SIDE_PX, seed)])
    return as_picture((drawn.permute(1, 2, 0).flip(2).numpy() + 1) * 127.5)


def make_picture(seed: int) -> Picture:
    """Return noise with the spectrum of photographs, around a few soft edges."""
    source = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(SIDE_PX) * SIDE_PX]))
    frequency[0, 0] = 1
    noise = source.standard_normal((3, SIDE_PX, SIDE_PX))
    texture = np.fft.ifft2(np.fft.fft2(noise) / frequency ** source.uniform(0.9, 1.4)).real
    picture = texture / texture.std() * source.uniform(10, 40)
    picture[1:] = 0.8 * picture[:1] + 0.4 * picture[1:]  # colours of photographs correlate
    edges = np.zeros((SIDE_PX, SIDE_PX, 3), np.float32)
    for _ in range(6):
        centre, radius = source.integers(0, SIDE_PX, 2), int(source.integers(20, 90))
        cv2.circle(edges, centre.tolist(), radius, source.uniform(-60, 60, 3).tolist(), -1)
    edges = cv2.GaussianBlur(edges, (0, 0), float(source.uniform(0.5, 3)))
    return as_picture(picture.transpose(1, 2, 0) + edges + source.uniform(70, 180))


def _mark_with(method: str) -> Callable[[Picture], Picture]:
    def mark(picture: Picture) -> Picture:
        encoder = WatermarkEncoder()
        encoder.set_watermark("bits", KEY.tolist())
        return as_picture(encoder.encode(picture, method))

    return mark


def _read_with(method: str) -> Callable[[Picture], Sequence[int]]:
    def read(picture: Picture) -> Sequence[int]:
        bits: Sequence[int] = WatermarkDecoder("bits", BITS).decode(picture, method)
        return bits

    return read


def _mark_blind(picture: Picture) -> Picture:
    watermark = WaterMark()
    watermark.read_img(img=picture)
    watermark.read_wm(KEY.astype(bool), mode="bit")
    return as_picture(watermark.embed())


def _read_blind(picture: Picture) -> Sequence[int]:
    bits = WaterMark().extract(embed_img=picture, wm_shape=BITS, mode="bit")
    return [int(bit > 0.5) for bit in bits]


METHODS = {
    "invisible-watermark, dwtDct": Method(_mark_with("dwtDct"), _read_with("dwtDct")),
    "invisible-watermark, dwtDctSvd": Method(_mark_with("dwtDctSvd"), _read_with("dwtDctSvd")),
    "blind-watermark": Method(_mark_blind, _read_blind),
    "invisible-watermark, rivaGan": Method(_mark_with("rivaGan"), _read_with("rivaGan"), True),
}

if __name__ == "__main__":
    main()
