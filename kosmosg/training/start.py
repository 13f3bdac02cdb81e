"""What a stage of KOSMOS-G begins with: the weights directory of the one before it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kosmosg.errors import TrainingError, WeightsError
from kosmosg.fingerprint import fingerprint
from kosmosg.models import KosmosG
from kosmosg.models.loading import load_component
from kosmosg.tokenizer import KosmosGTokenizer
from kosmosg.weights import check_layout


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
        return load_component(KosmosG, self.directory / "kosmosg", dtype=torch.float32)

    def tokenizer(self) -> KosmosGTokenizer:
        """Load the tokenizer."""
        return KosmosGTokenizer.from_pretrained(self.directory / "tokenizer")

    def check_vocabulary(self, kosmosg: KosmosG) -> None:
        """Check that tokenizer and model belong together.

        Raises:
            WeightsError: With both sizes.
        """
        if len(self.tokenizer()) != kosmosg.vocabulary_size:
            raise WeightsError(
                f"{self.directory}: the tokenizer has {len(self.tokenizer())} entries, the "
                f"language model {kosmosg.vocabulary_size}. Start from weights whose parts belong "
                "together."
            )

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
