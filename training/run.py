"""Run: all stages of the training, from random weights to a model folder."""

import argparse
from pathlib import Path

import torch

from training.export import export
from training.networks.autoencoder import train_decoder
from training.networks.denoiser import BATCH, PEAK_RATE, SCENE_COUNT, SIDES, train_denoiser
from training.networks.text_encoder import train_text_encoder
from training.networks.tokenizer import build_tokenizer
from training.parts import Parts

STAGES = ("text", "denoiser", "decoder", "export")
DEFAULT_MINUTES = {"text": 4.0, "denoiser": 110.0, "decoder": 8.0}


def main() -> None:
    """Run the chosen stages; each continues from the working folder of the earlier ones."""
    arguments = parse_arguments()
    stages = arguments.stages
    parts = Parts(arguments.work, arguments.start)
    arguments.work.mkdir(parents=True, exist_ok=True)
    if "text" in stages:
        tokenizer = build_tokenizer()
        text_encoder, pooling = train_text_encoder(tokenizer, arguments.text_minutes)
        tokenizer.save_pretrained(parts.tokenizer_folder)
        text_encoder.save_pretrained(parts.text_encoder_folder)
        torch.save(pooling.state_dict(), parts.pooling_file)
    if "denoiser" in stages:
        training = parts.training()
        if arguments.new_schedule:
            training.spent_s = 0.0
        train_denoiser(
            training,
            parts.tokenizer(),
            parts.autoencoder(),
            arguments.denoiser_minutes,
            parts.checkpoint,
            arguments.peak_rate,
            arguments.batch,
            arguments.scenes,
            arguments.largest_side,
        )
    if "decoder" in stages:
        autoencoder = parts.autoencoder()
        train_decoder(autoencoder, arguments.decoder_minutes)
        autoencoder.save_pretrained(parts.autoencoder_folder)
    if "export" in stages:
        average = parts.training().average.cpu()
        export(
            arguments.model,
            parts.tokenizer(),
            average["text_encoder"],
            parts.autoencoder(),
            average["denoiser"],
        )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/training"), help="working folder")
    parser.add_argument(
        "--model", type=Path, default=Path("build/shapes"), help="folder to export to"
    )
    parser.add_argument("--start", type=Path, help="model folder to train further")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="stages to run")
    for name, minutes in DEFAULT_MINUTES.items():
        parser.add_argument(
            f"--{name}-minutes", type=float, default=minutes, help=f"length of the {name} stage"
        )
    parser.add_argument(
        "--peak-rate", type=float, default=PEAK_RATE, help="highest learning rate of the denoiser"
    )
    parser.add_argument(
        "--batch", type=int, default=BATCH, help="pictures per step of the denoiser"
    )
    parser.add_argument(
        "--scenes", type=int, default=SCENE_COUNT, help="training scenes of the denoiser"
    )
    parser.add_argument(
        "--largest-side",
        type=int,
        choices=SIDES,
        default=max(SIDES),
        help="largest side of the denoiser's pictures, in pixels",
    )
    parser.add_argument(
        "--new-schedule",
        action="store_true",
        help="restart the denoiser's minutes and learning rate",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
