"""What a stage of KOSMOS-G begins with: the weights directory of the one before it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kosmosg.checkpoints.folder import check_layout
from kosmosg.checkpoints.loading import REMEDY, check_config, load_model
from kosmosg.errors import TrainingError, WeightsError
from kosmosg.models.kosmosg import KosmosG, KosmosGConfig
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.fingerprint import fingerprint


@dataclass(frozen=True, kw_only=True)
class Start:
    """The weights directory that a stage of KOSMOS-G begins with.

    Raises:
        WeightsError: If it is incomplete.
    """

    directory: Path

    def __post_init__(self) -> None:
        check_layout(self.directory)

    def identity(self) -> dict[str, Any]:
        """Return what a resumed run must have in common with the one it goes on with."""
        return {"weights": fingerprint(self.directory)}

    def kosmosg(self) -> KosmosG:
        """Load KOSMOS-G, in the precision that training needs."""
        return load_model(KosmosG, self.directory / "kosmosg", dtype=torch.float32)

    def sizes(self) -> KosmosGConfig:
        """Read KOSMOS-G's sizes alone, and check that the tokenizer belongs to them.

        Raises:
            WeightsError: If it does not, with both sizes, or they cannot be read.
        """
        folder = self.directory / "kosmosg"
        check_config(folder / "config.json", "kosmosg")
        try:
            sizes = KosmosGConfig.from_pretrained(folder, local_files_only=True)
            wanted = sizes.vocabulary_size
        except Exception as error:
            # Sizes of the wrong kind end in errors of every kind.
            raise WeightsError(f"kosmosg: {folder} cannot be read ({error!r}). {REMEDY}") from error
        if (found := len(self.tokenizer())) != wanted:
            raise WeightsError(
                f"{self.directory}: the tokenizer has {found} entries, the language model "
                f"{wanted}. Start from weights whose parts belong together."
            )
        return sizes

    def tokenizer(self) -> KosmosGTokenizer:
        """Load the tokenizer."""
        return KosmosGTokenizer.from_pretrained(self.directory / "tokenizer")

    def check_output(self, output: Path) -> None:
        """Check that a run does not write into the weights that it begins with.

        Raises:
            TrainingError: With both folders.
        """
        if output.resolve().is_relative_to(self.directory.resolve()):
            raise TrainingError(
                f"The run {output} would lie in the weights {self.directory}, which are copied "
                "into its result. Name another output folder."
            )
