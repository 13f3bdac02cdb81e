"""``runs/one_gpu.sh`` from nothing to its table, at toy size, from a Hub on the loopback interface.

Everything has its name there, as the real parts have: Kosmos-2, Stable Diffusion, captions, edits,
subjects, captioned images. The script is killed in the middle of stage 2 and started again.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.conftest import ROOT
from tests.evaluation.fabricated import write_clip, write_dino, write_dreambooth
from tests.evaluation.fabricated import write_stable_diffusion as write_decoder
from tests.hub import Hub, environment, running
from tests.tables import captions, embedded, png, to_parquet

PATIENCE = 240.0  # seconds, for a machine that is busy
SETS: dict[str, list[dict[str, Any]]] = {
    "texts": [{"text": f"a red dog in the garden {n}"} for n in range(40)],
    "edits": [
        {
            "original_image": embedded(png(n)),
            "edited_image": embedded(png(n + 9)),
            "original_prompt": "a dog",
            "edit_prompt": "a red dog",
        }
        for n in range(12)
    ],
    "subjects": [
        {
            "prompt": "the dog on the beach",
            "source_images": [embedded(png(n)), embedded(png(n + 1))][: 1 + n % 2],
            "target_image": embedded(png(n + 2)),
        }
        for n in range(12)
    ],
    "images": captions(12),
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """The Hub, and what a process needs to work with it."""

    hub: Hub
    folder: Path
    variables: dict[str, str]

    def start(self, output: Path) -> subprocess.Popen[str]:
        """Start the script in a group of its own, to be killed as a whole."""
        return subprocess.Popen(
            [ROOT / "runs" / "one_gpu.sh", output, "toy"],
            env={**os.environ, **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("one_gpu")
    tiny.write_kosmos2(folder)
    write_decoder(folder / "decoder")
    write_dino(folder / "dino")
    write_clip(folder / "clip")
    write_dreambooth(folder / "dreambooth", ["cat"])
    (folder / "sizes.json").write_text(json.dumps(tiny.SIZES))
    with running() as hub:
        hub.add("someone/kosmos-2", folder / "kosmos2")
        hub.add("someone/decoder", folder / "decoder")
        for name, rows in SETS.items():
            files = {"data/train-00000-of-00001.parquet": to_parquet(rows)}
            hub.add(f"someone/{name}", files, kind="datasets")
        variables = {
            **environment(hub, folder / "home"),
            "PYTHON": sys.executable,
            "OMP_NUM_THREADS": "1",
            "KOSMOS2": "someone/kosmos-2",
            "STABLE_DIFFUSION": "someone/decoder",
            "TOKENIZER": str(folder / "tokenizer"),
            "SIZES": str(folder / "sizes.json"),
            "CAPTIONS": "hub:someone/texts",
            "SUBJECTS": "hub:someone/subjects",
            "EDITS": "hub:someone/edits",
            "IMAGES": "hub:someone/images",
            "DREAMBENCH": str(folder / "dreambooth"),
            "ONLY": "cat",
            "DINO": str(folder / "dino"),
            "CLIP": str(folder / "clip"),
        }
        yield Place(hub=hub, folder=folder, variables=variables)


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while not file.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.02)


def test_from_nothing_to_its_table_with_a_kill_between(place: Place, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with place.start(output) as killed:
        wait_for(output / "align" / "checkpoints" / "step-00000002", killed)
        os.killpg(killed.pid, signal.SIGKILL)
    assert not (output / "instruct").exists()
    begun = json.loads((output / "align" / "revisions.json").read_text())
    repository = place.hub.repositories["datasets/someone/texts"]
    assert begun == {"datasets/someone/texts@main": repository.branches["main"]}
    repository.commit({"data/train.parquet": to_parquet([{"text": "something else"}])})

    with place.start(output) as again:
        said = again.communicate(timeout=PATIENCE)[0]
    assert again.returncode == 0, said
    assert "stage 1, from Kosmos-2" in said and "error" not in said.lower(), said
    history = json.loads((output / "instruct" / "weights" / "training.json").read_text())
    assert [(each["stage"], each["updates"]) for each in history] == [("align", 4), ("instruct", 2)]
    assert history[0]["data"] == [f"someone/texts@{begun['datasets/someone/texts@main']}"]
    assert len(history[1]["data"]) == 3 and all(each["loss"] > 0 for each in history)
    table = (output / "dreambench" / "table.md").read_text()
    assert "DINO" in table and "CLIP-T" in table
    assert "<img" in (output / "dreambench" / "sheet.html").read_text()

    with place.start(output) as done:  # and all of it is there
        said = done.communicate(timeout=PATIENCE)[0]
    assert done.returncode == 0 and (output / "dreambench" / "table.md").read_text() == table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "usage: "),
        (["a", "b", "c"], "usage: "),
        (["a", "16"], "there is no preset '16'. Choose"),
    ],
)
def test_words_that_cannot_be_read(words: list[str], message: str) -> None:
    done = subprocess.run(
        [ROOT / "runs" / "one_gpu.sh", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and message in done.stderr
