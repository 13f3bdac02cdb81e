"""``python -m miniature``: the data of a world of artwork, training, the paper's tables."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, subcommand

from kosmosg.cli.main import Program, run_program
from kosmosg.cli.train import TrainCommand
from kosmosg.diffusion.settings import MAX_SEED
from kosmosg.errors import SettingError
from kosmosg.utils.checks import check_integer, check_number
from miniature.pretraining.options import (
    ClipOptions,
    ControlNetOptions,
    DecoderOptions,
    LoraOptions,
    ProbeOptions,
    VaeOptions,
)

if TYPE_CHECKING:
    from kosmosg.evaluation.models import Generate, Sampling
    from miniature.evaluation.tables import RowResult


@dataclass(frozen=True, kw_only=True)
class WriteData:
    """Write training data as WebDataset shards.

    Attributes:
        directory: Folder to write; a stopped run is continued.
        seed: Decides all samples.
        scale: Share of the samples.
        processes: Processes that write.
        art: Folder of transparent PNGs named by nouns; else the public art, fetched once.
    """

    directory: Positional[Path]
    seed: int = 0
    scale: float = 1.0
    processes: int = 2
    art: Path | None = None

    def run(self) -> None:
        """Write the data set."""
        from tqdm import tqdm

        from miniature.world.art import open_art
        from miniature.world.dataset import write_dataset

        with tqdm(desc="draw", unit="sample") as bar:

            def progress(done: int, total: int) -> None:
                if bar.total is None:
                    bar.initial = done  # written by an earlier run, so no part of the speed
                bar.total, bar.n = total, done
                bar.refresh()

            write_dataset(
                self.directory,
                open_art(self.art),
                seed=self.seed,
                scale=self.scale,
                processes=self.processes,
                progress=progress,
            )
        print(self.directory)


@dataclass(frozen=True, kw_only=True)
class WriteVocabulary:
    """Write the tokenizers of the language model and CLIP.

    Attributes:
        directory: Where to write the folders tokenizer and clip_tokenizer.
        art: As for the data.
    """

    directory: Positional[Path]
    art: Path | None = None

    def run(self) -> None:
        """Write both tokenizers."""
        from miniature.world.art import open_art
        from miniature.world.vocabulary import write_clip_tokenizer, write_tokenizer
        from miniature.world.world import World

        world = World.open(open_art(self.art))
        folders = (self.directory / "tokenizer", self.directory / "clip_tokenizer")
        for folder, write in zip(folders, (write_tokenizer, write_clip_tokenizer), strict=True):
            print(f"{folder}: {len(write(world, folder))} tokens")


@dataclass(frozen=True, kw_only=True)
class TrainPart(TrainCommand):
    """Train what KOSMOS-G takes from others, a probe, or adapters."""

    part: (
        Annotated[ClipOptions, subcommand("clip")]
        | Annotated[VaeOptions, subcommand("vae")]
        | Annotated[DecoderOptions, subcommand("decoder")]
        | Annotated[ProbeOptions, subcommand("probe")]
        | Annotated[LoraOptions, subcommand("lora")]
        | Annotated[ControlNetOptions, subcommand("controlnet")]
    )

    def train(self) -> Path:
        """Train the part."""
        from miniature.pretraining import adapter_parts, parts

        trainers: dict[type, Any] = {
            ClipOptions: parts.train_clip,
            VaeOptions: parts.train_vae,
            DecoderOptions: parts.train_decoder,
            ProbeOptions: parts.train_probe,
            LoraOptions: adapter_parts.train_lora,
            ControlNetOptions: adapter_parts.train_controlnet,
        }
        return trainers[type(self.part)](self.part)


@dataclass(frozen=True, kw_only=True)
class FillTables:
    """Print the paper's tables, or show examples; with a folder and an image file, do both.

    Attributes:
        weights: Weights folder after stage 3.
        after_align: Weights folder after stage 2, for its rows.
        end_to_end: Weights folder trained without stage 2.
        probe: Folder of what reads images; else probe in the weights folder.
        prompts: Prompts of each row.
        steps: Denoising steps, 1 to 999.
        guidance_scale: Strength of the guidance; 1 switches it off.
        seed: Of prompts and images, 0 to 4294967295.
        batch: Images generated at once.
        device: Such as cpu or cuda:1; else cuda if there is one, else cpu.
        output: Folder for results, table and sheets.
        sheet: Image file that shows examples of each skill.
        art: Folder of art that the weights were trained on; else the public art, fetched once.
    """

    weights: Path = Path("weights/miniature")
    after_align: Path | None = None
    end_to_end: Path | None = None
    probe: Path | None = None
    prompts: int = 200
    steps: int = 30
    guidance_scale: float = 5.0
    seed: int = 0
    batch: int = 25
    device: str | None = None
    output: Path | None = None
    sheet: Path | None = None
    art: Path | None = None

    def __post_init__(self) -> None:
        check_integer("--prompts", self.prompts, 1, 100_000)
        check_integer("--batch", self.batch, 1, 10_000)
        check_integer("--steps", self.steps, 1, 999)
        check_integer("--seed", self.seed, 0, MAX_SEED - self.prompts)
        check_number("--guidance-scale", self.guidance_scale, 1, 1000)

    def run(self) -> None:
        """Fill the tables, show the examples, or both."""
        from kosmosg.checkpoints.folder import find_weights
        from kosmosg.evaluation.models import Sampling
        from kosmosg.serving.metadata import check_format

        if self.sheet:
            check_format(self.sheet)
        weights = find_weights(self.weights)
        for folder in filter(None, (self.after_align, self.end_to_end)):
            find_weights(folder)
        sampling = Sampling(steps=self.steps, guidance_scale=self.guidance_scale)
        if self.output or not self.sheet:
            self._measure(weights, sampling)
        if self.sheet:
            self._show_skills(weights, sampling, self.sheet)

    def _measure(self, weights: Path, sampling: "Sampling") -> None:
        from tqdm import tqdm

        from kosmosg.utils.devices import choose_device
        from miniature.evaluation.probe import Probe
        from miniature.evaluation.probe_labels import make_heads
        from miniature.evaluation.report import make_table, write_report
        from miniature.evaluation.tables import FIRST_ROW, RATIO, ROWS, evaluate_row
        from miniature.world.art import open_art
        from miniature.world.world import World

        device = choose_device(self.device)
        probe = Probe.from_pretrained(self.probe or weights / "probe").to(device)
        world = World.open(open_art(self.art))
        if probe.config.heads != make_heads(world):
            raise SettingError(
                f"The probe in {self.probe or weights / 'probe'} reads another world. Give the art "
                "that it was trained on by --art, or its own probe by --probe."
            )
        results: dict[str, RowResult] = {}
        left_out: dict[str, str] = {}
        models: dict[str, Generate | str] = {}
        for row in ROWS:
            if row.model not in models:
                models[row.model] = self._open(row.model, weights, sampling)
            generate = models[row.model]
            if isinstance(generate, str):
                left_out[row.key] = generate
                continue
            compared = results.get(FIRST_ROW) if RATIO in row.shown else None
            with tqdm(desc=row.key, unit="image", total=self.prompts) as bar:

                def progress(done: int, total: int, bar: tqdm = bar) -> None:
                    bar.update(done - bar.n)

                results[row.key] = evaluate_row(
                    *(row, world, generate, probe.read),
                    prompts=self.prompts,
                    seed=self.seed,
                    batch=self.batch,
                    compared=compared,
                    progress=progress,
                )
        settings = self._settings(weights, sampling, str(device))
        found = [*results.values()]
        if self.output:
            write_report(found, left_out, settings, self.output)
        print(make_table(found, left_out, settings), end="")

    def _show_skills(self, weights: Path, sampling: "Sampling", sheet: Path) -> None:
        from miniature.evaluation.skills import draw_skills
        from miniature.evaluation.tables import FINAL
        from miniature.world.art import open_art
        from miniature.world.world import World

        generate: Any = self._open(FINAL, weights, sampling)
        sheet.parent.mkdir(parents=True, exist_ok=True)
        draw_skills(World.open(open_art(self.art)), generate, seed=self.seed).save(sheet)
        print(sheet)

    def _open(self, model: str, weights: Path, sampling: "Sampling") -> "Generate | str":
        """Open a model, or say why it is not there."""
        import torch

        from kosmosg.evaluation.models import clip_generator, kosmosg_generator
        from kosmosg.pipeline import KosmosGPipeline
        from kosmosg.utils.devices import choose_device
        from miniature.evaluation.tables import AFTER_ALIGN, CLIP, END_TO_END

        device = choose_device(self.device)
        if model == CLIP:
            parts = [weights / name for name in ("text_encoder", "clip_tokenizer")]
            if missing := [part.name for part in parts if not part.is_dir()]:
                return f"{weights} has no {' and no '.join(missing)}"
            dtype = torch.float16 if device.type == "cuda" else torch.float32
            return clip_generator(weights, sampling, device=device, dtype=dtype)
        others = {AFTER_ALIGN: self.after_align, END_TO_END: self.end_to_end}
        folder = others.get(model, weights)
        if folder is None:
            return (
                f"no weights given by --{'after-align' if model == AFTER_ALIGN else 'end-to-end'}"
            )
        return kosmosg_generator(KosmosGPipeline.from_pretrained(folder, device=device), sampling)

    def _settings(self, weights: Path, sampling: "Sampling", device: str) -> dict[str, Any]:
        """List what decides the numbers, to be written beside them."""
        folders = {"weights": weights} | {
            name: getattr(self, name) for name in ("after_align", "end_to_end", "probe")
        }
        return {
            "prompts": self.prompts,
            "steps": sampling.steps,
            "guidance_scale": sampling.guidance_scale,
            "scheduler": sampling.scheduler,
            "seed": self.seed,
            "batch": self.batch,
            "device": device,
            **{name: str(folder) for name, folder in folders.items() if folder},
        }


@dataclass(frozen=True, kw_only=True)
class MiniatureProgram(Program):
    """A small KOSMOS-G in a world of artwork: its data, what it takes from others, its tables."""

    command: (
        Annotated[WriteData, subcommand("data")]
        | Annotated[WriteVocabulary, subcommand("vocabulary")]
        | Annotated[TrainPart, subcommand("train")]
        | Annotated[FillTables, subcommand("evaluate")]
    )

    def run(self) -> None:
        """Run the command."""
        self.command.run()


def main(words: Sequence[str] | None = None) -> int:
    """Run one command of ``python -m miniature``; see ``run_program``."""
    return run_program(MiniatureProgram, "miniature", words)


if __name__ == "__main__":
    sys.exit(main())
