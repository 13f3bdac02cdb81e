"""``convert``, ``new`` and ``download``: where weights folders come from."""

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from kosmosg.diffusion.settings import CONTROL_TYPES, MAX_SEED
from kosmosg.errors import SettingError
from kosmosg.models.config import FULL_SIZE, SD15_REPOSITORY, Dtype
from kosmosg.utils.checks import check_integer

CONTROLNET = "controlnet"
STAGES = {"lm": "1 (language model)", "align": "2 (aligned)", "instruct": "3 (final)"}


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn the authors' checkpoint into a weights folder.

    Attributes:
        checkpoint: .pt of any stage, or .safetensors.
        output: Weights folder to write.
        tokenizer: Folder with sentencepiece.bpe.model and dict.txt.
        from_kosmos2: CHECKPOINT is a folder or Hub id of Kosmos-2, from which stage 2 can start.
        stable_diffusion: Folder or Hub id, for what the checkpoint lacks.
        config: JSON with the sizes of another model.
        dtype: Precision to write.
        ignore: Leave out unknown keys that match a pattern such as 'extra.*'.
        no_safety_checker: Do not take the safety checker.
    """

    checkpoint: Positional[str]
    output: Positional[Path]
    tokenizer: Path
    from_kosmos2: bool = False
    stable_diffusion: str = SD15_REPOSITORY
    config: Path | None = None
    dtype: Dtype = "float16"
    ignore: tuple[str, ...] = ()
    no_safety_checker: bool = False

    def run(self) -> None:
        """Convert a checkpoint and report what became of it."""
        import torch

        from kosmosg.checkpoints.convert import convert_checkpoint
        from kosmosg.checkpoints.kosmos2 import convert_kosmos2
        from kosmosg.models.config import read_sizes

        common = {
            "tokenizer": self.tokenizer,
            "stable_diffusion": self.stable_diffusion,
            "sizes": read_sizes(self.config) if self.config else FULL_SIZE,
            "dtype": getattr(torch, self.dtype),
            "safety_checker": not self.no_safety_checker,
        }
        if self.from_kosmos2:
            report = convert_kosmos2(self.checkpoint, self.output, **common)
        else:
            report = convert_checkpoint(self.checkpoint, self.output, ignore=self.ignore, **common)
        print(f"{self.output}: a checkpoint of stage {STAGES[report.stage]}")
        for part, count in report.converted.items():
            print(f"  {part}: {count} tensors")
        for reason, count in report.left_out.items():
            print(f"  left out: {count} ({reason})")
        for note in report.notes:
            print(f"  note: {note}")


@dataclass(frozen=True, kw_only=True)
class New:
    """Write untrained weights, to train from nothing.

    Attributes:
        output: Weights folder to write.
        tokenizer: KOSMOS-G's tokenizer.
        config: JSON with an object 'kosmosg' of the sizes; else those of the released model.
        stable_diffusion: Folder or Hub id of U-Net and VAE.
        clip: Folder of a CLIP whose image tower is taken over.
        text_encoder: Take Stable Diffusion's text encoder along.
        dtype: Precision to write.
        seed: Of the random weights, 0 to 4294967295.
    """

    output: Positional[Path]
    tokenizer: Path
    config: Path | None = None
    stable_diffusion: str = SD15_REPOSITORY
    clip: Path | None = None
    text_encoder: bool = False
    dtype: Dtype = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("--seed", self.seed, 0, MAX_SEED)

    def run(self) -> None:
        """Write the folder."""
        import torch

        from kosmosg.checkpoints.untrained import write_untrained
        from kosmosg.models.config import read_part

        write_untrained(
            self.output,
            sizes=read_part(self.config, "kosmosg") if self.config else FULL_SIZE,
            tokenizer=self.tokenizer,
            stable_diffusion=self.stable_diffusion,
            clip=self.clip,
            text_encoder=self.text_encoder,
            dtype=getattr(torch, self.dtype),
            seed=self.seed,
        )
        print(self.output)


@dataclass(frozen=True, kw_only=True)
class Download:
    """Fetch weights, as a manifest lists them.

    Attributes:
        groups: Else all for inference; 'controlnet' is followed by kinds, such as canny depth.
        manifest: List of files; else the package's own.
        weights: Folder to write to.
        mirror: Address in place of https://huggingface.co.
        url: NAME=URL: another place for one file, such as kosmos-g=https://…/kosmosg.pt.
    """

    groups: Positional[tuple[str, ...]] = ()
    manifest: Path | None = None
    weights: Path = Path("weights")
    mirror: str | None = None
    url: tuple[str, ...] = ()

    def run(self) -> None:
        """Fetch the files and name the next step."""
        from kosmosg.checkpoints.download import download
        from kosmosg.checkpoints.manifest import read_manifest

        urls = {}
        for entry in self.url:
            name, equals, url = entry.partition("=")
            if not equals:
                raise SettingError(f"--url {entry}: write NAME=URL, with a name of the manifest.")
            urls[name] = url
        files = download(
            read_manifest(self.manifest),
            self.weights,
            groups=_join_kinds(self.groups) or None,
            mirror=self.mirror,
            progress=sys.stderr.isatty(),
            urls=urls,
        )
        for file in files:
            print(file)
        if not self.groups:
            print(
                f"Next: python -m kosmosg convert {self.weights}/checkpoints/kosmos-g.pt "
                f"{self.weights}/kosmos-g --tokenizer {self.weights}/tokenizer "
                f"--stable-diffusion {self.weights}/stable-diffusion-v1-5"
            )


def _join_kinds(words: tuple[str, ...]) -> list[str]:
    """Read ``controlnet canny depth tokenizer`` as two groups of ControlNets and another one."""
    groups: list[str] = []
    kinds = False
    for word in words:
        kinds = word == CONTROLNET or (kinds and word in CONTROL_TYPES)
        if word != CONTROLNET:
            groups.append(f"{CONTROLNET} {word}" if kinds else word)
    if (words and not groups) or words[-1:] == (CONTROLNET,):
        raise SettingError(f"Name the kinds after {CONTROLNET}: {', '.join(CONTROL_TYPES)}.")
    return groups
