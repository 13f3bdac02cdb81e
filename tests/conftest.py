"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from tests import tiny

ROOT = Path(__file__).resolve().parent.parent

# The models are tiny: threads would only wait for each other, long on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
torch.set_num_threads(1)
os.environ["HF_HUB_OFFLINE"] = "1"
constants.HF_HUB_OFFLINE = True  # read once, at the import


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights directory with a small random model in the full layout."""
    return tiny.write_weights(tmp_path_factory.mktemp("tiny") / "weights")


@pytest.fixture(scope="session")
def real_tokenizer() -> Path:
    """The folder with the real tokenizer's files, or a skip that says where they belong."""
    places = [ROOT.parent / "shared" / "tokenizer", ROOT / "weights" / "kosmos-g" / "tokenizer"]
    for place in places:
        if (place / "dict.txt").is_file():
            return place
    pytest.skip("the real tokenizer's files are not in weights/kosmos-g/tokenizer")
