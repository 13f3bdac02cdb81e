"""Kosmos-2 → weights from which the aligning stage can start.

KOSMOS-G's stage 1 was never published, but Kosmos-2 was, and its architecture is the same. Its
vocabulary holds the same pieces in another order, besides some of its own: the embedding's rows
are carried over by the string of the piece, and those of the others are left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Kosmos2Config, Kosmos2Model

from kosmosg.checkpoints.convert import Conversion, check_output, write_weights
from kosmosg.checkpoints.mapping import CheckpointMapping, initial_aligner, shorten
from kosmosg.checkpoints.parameter_names import KOSMOSG
from kosmosg.checkpoints.stable_diffusion import StableDiffusionSource
from kosmosg.errors import CheckpointError
from kosmosg.models.config import FULL_SIZE, SD15_REPOSITORY, check_sizes
from kosmosg.models.kosmosg import KosmosG, KosmosGConfig
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.files import reason

EMBEDDING = "text_model.model.embed_tokens.weight"


def convert_kosmos2(
    kosmos2: str | Path,
    output: str | Path,
    *,
    tokenizer: str | Path,
    stable_diffusion: str = SD15_REPOSITORY,
    sizes: dict[str, Any] = FULL_SIZE,
    dtype: torch.dtype = torch.float16,
    safety_checker: bool = True,
    progress: bool = True,
) -> Conversion:
    """Convert Kosmos-2 into a stage-1 weights folder with an untrained AlignerNet.

    Args:
        kosmos2: Folder or Hub repository in the transformers layout, with its tokenizer.
        output: Weights folder to write; it must be empty or absent.
        tokenizer: KOSMOS-G's tokenizer folder, which decides the order of the vocabulary.
        stable_diffusion: As for ``convert``.
        sizes: AlignerNet's sizes are taken from here; the rest is Kosmos-2's own.
        dtype: Precision of the written weights.
        safety_checker: As for ``convert``.
        progress: Show a progress bar.

    Raises:
        CheckpointError: If Kosmos-2 cannot be loaded or lacks a piece of the dictionary.
        WeightsError: If the tokenizer cannot be read.
    """
    check_output(output)
    check_sizes(sizes)
    words = KosmosGTokenizer.from_pretrained(tokenizer)
    model, vocabulary = load_kosmos2(kosmos2, dtype)
    rows = match_rows(words.symbols, vocabulary)
    tensors = dict(model.state_dict())
    left_out = {"words that only Kosmos-2 has": len(tensors[EMBEDDING]) - len(rows)}
    tensors[EMBEDDING] = tensors[EMBEDDING][torch.tensor(rows)]

    config = KosmosGConfig.from_sizes(sizes, stage="lm")
    config.kosmos2 = Kosmos2Config.from_dict(model.config.to_dict())
    config.kosmos2.text_config.vocab_size = len(rows)
    config.kosmos2.text_config.use_cache = False
    config.aligner["source_dim"] = config.kosmos2.text_config.embed_dim
    with torch.device("meta"):
        module = KosmosG(config)
    named = {f"kosmos2.{name}": tensor for name, tensor in tensors.items()}
    mapping = CheckpointMapping(
        stage="lm",
        vocabulary=len(rows),
        modules={KOSMOSG: module},
        tensors={KOSMOSG: named | initial_aligner(config)},
        left_out=left_out,
    )
    return write_weights(
        mapping,
        Path(output),
        words,
        StableDiffusionSource(location=stable_diffusion),
        dtype,
        safety_checker=safety_checker,
        progress=progress,
    )


def load_kosmos2(
    location: str | Path, dtype: torch.dtype
) -> tuple[Kosmos2Model, Mapping[str, int]]:
    """Load Kosmos-2 without its output matrix, and its vocabulary.

    Raises:
        CheckpointError: If it cannot be loaded, or lacks a tensor.
    """
    loader: Any = Kosmos2Model
    folder = Path(location)
    # Without the file the loader would go on, with Kosmos-2's own sizes.
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise CheckpointError(f"Kosmos-2 could not be taken from {folder} (no config.json).")
    try:
        model, report = loader.from_pretrained(
            location, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        vocabulary = AutoTokenizer.from_pretrained(location).get_vocab()
    except Exception as error:
        # transformers, tokenizers and the Hub client each have errors of their own.
        raise CheckpointError(
            f"Kosmos-2 could not be taken from {location} ({reason(error)}). Give a folder or Hub "
            "repository in the layout of transformers, such as microsoft/kosmos-2-patch14-224."
        ) from error
    if report["missing_keys"]:
        names = shorten(sorted(report["missing_keys"]))
        raise CheckpointError(f"{location} is no whole Kosmos-2: it lacks {names}.")
    return model, vocabulary


def match_rows(symbols: list[str], vocabulary: Mapping[str, int]) -> list[int]:
    """Find Kosmos-2's id of every symbol, in the order of ours.

    Raises:
        CheckpointError: Listing the symbols that it does not know.
    """
    missing = [symbol for symbol in symbols if symbol not in vocabulary]
    if missing:
        raise CheckpointError(
            f"Kosmos-2 does not know {len(missing)} symbols of the dictionary: {shorten(missing)}. "
            "The tokenizer must be KOSMOS-G's own."
        )
    return [vocabulary[symbol] for symbol in symbols]
