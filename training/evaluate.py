"""Evaluation: the share of fixed prompts that a model draws correctly."""

import argparse
import time
from collections import Counter
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from PIL import Image
from torch import Tensor

from training.scenes.judge import Verdict, find_background, judge, judge_pair
from training.scenes.prompts import PairPrompt, Prompt, evaluation_pairs, evaluation_prompts
from training.scenes.scene import SHAPES

SCHEDULERS = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm": DPMSolverMultistepScheduler,
}
SHEET_COLUMNS, SHEET_ROWS = 12, 4
BATCH = 12


def load_pipeline(folder: Path, scheduler: str = "ddim") -> DiffusionPipeline:
    """Load a model folder as a pipeline, in float32, with one of SCHEDULERS."""
    pipeline = DiffusionPipeline.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32, local_files_only=True
    )
    pipeline.scheduler = SCHEDULERS[scheduler].from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: DiffusionPipeline, texts: list[str], steps: int, guidance_scale: float, seed: int
) -> Tensor:
    """Draw prompts, with seeds counted up from `seed`: (batch, 3, height, width), in [0, 1]."""
    generators = [torch.Generator().manual_seed(seed + number) for number in range(len(texts))]
    pictures: Tensor = pipeline(
        texts,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generators,
        output_type="pt",
    ).images
    return pictures


def report(prompts: list[Prompt], verdicts: list[Verdict]) -> str:
    """Return the shares with the right colour, background and shape, then each shape's score."""
    pairs = list(zip(prompts, verdicts, strict=True))
    colours = sum(prompt.colour == seen.colour for prompt, seen in pairs)
    backgrounds = sum(prompt.background == seen.background for prompt, seen in pairs)
    shapes = sum(prompt.shape == seen.shape for prompt, seen in pairs)
    count = len(pairs)
    lines = [
        f"foreground colour  {colours}/{count}  {colours / count:.1%}",
        f"background         {backgrounds}/{count}  {backgrounds / count:.1%}",
        f"shape              {shapes}/{count}  {shapes / count:.1%}",
        "",
    ]
    for shape in SHAPES:
        seen = Counter(str(verdict.shape) for prompt, verdict in pairs if prompt.shape == shape)
        right, others = seen.pop(shape, 0), ", ".join(f"{n} {s}" for s, n in seen.most_common())
        lines.append(
            f"{shape:9} {right}/{right + seen.total()}" + (f"  ({others})" if others else "")
        )
    return "\n".join(lines)


def report_pairs(prompts: list[PairPrompt], pictures: list[Tensor]) -> str:
    """Return the shares of pairs with both colours, both shapes and the background right."""
    rights: Counter[str] = Counter()
    for prompt, picture in zip(prompts, pictures, strict=True):
        seen = judge_pair(picture, prompt.is_upright)
        colours = tuple(verdict.colour for verdict in seen)
        rights["both colours"] += colours == prompt.colours
        rights["colours the wrong way round"] += colours == prompt.colours[::-1]
        rights["both shapes"] += tuple(verdict.shape for verdict in seen) == prompt.shapes
        rights["background"] += find_background(picture) == prompt.background
    count = len(prompts)
    return "\n".join(f"{name:28}{n}/{count}  {n / count:.1%}" for name, n in rights.items())


def contact_sheet(pictures: list[Tensor]) -> Image.Image:
    """Arrange the first pictures, all of one size, in full rows."""
    rows = min(len(pictures) // SHEET_COLUMNS, SHEET_ROWS)
    grid = torch.stack(pictures[: rows * SHEET_COLUMNS])
    height, width = grid.shape[2:]
    grid = grid.view(rows, SHEET_COLUMNS, 3, height, width).permute(0, 3, 1, 4, 2)
    pixels = (grid.reshape(rows * height, SHEET_COLUMNS * width, 3) * 255).round().byte()
    return Image.fromarray(pixels.numpy())


def main() -> None:
    """Draw the prompts, judge the pictures and print the shares that are right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a model folder")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=4.0)
    parser.add_argument("--scheduler", choices=SCHEDULERS, default="ddim")
    parser.add_argument("--limit", type=int, help="number of prompts (default: all)")
    parser.add_argument("--sheet", type=Path, help="PNG file for a contact sheet")
    parser.add_argument("--pairs", action="store_true", help="use prompts of two things")
    parser.add_argument("--misses", action="store_true", help="print the prompts drawn wrong")
    arguments = parser.parse_args()
    prompts = evaluation_prompts()[: arguments.limit]
    pairs = evaluation_pairs()[: arguments.limit]
    texts = [prompt.text for prompt in (pairs if arguments.pairs else prompts)]
    pipeline = load_pipeline(arguments.model, arguments.scheduler)
    pictures: list[Tensor] = []
    started = time.monotonic()
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        pictures += draw(pipeline, batch, arguments.steps, arguments.guidance_scale, start)
    print(f"{(time.monotonic() - started) / len(texts):.2f} s per picture, {BATCH} at a time")
    if arguments.pairs:
        print(report_pairs(pairs, pictures))
    else:
        verdicts = [judge(picture) for picture in pictures]
        print(report(prompts, verdicts))
        for prompt, seen in zip(prompts, verdicts, strict=True):
            wanted = (prompt.shape, prompt.colour, prompt.background)
            if arguments.misses and wanted != (seen.shape, seen.colour, seen.background):
                print(f"{prompt.text!r}: {seen.colour} {seen.shape} on {seen.background}")
    if arguments.sheet:
        contact_sheet(pictures).save(arguments.sheet, optimize=True)


if __name__ == "__main__":
    main()
