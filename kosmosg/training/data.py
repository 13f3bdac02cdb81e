"""Data as it is named on the command line → streams of samples for a stage."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from kosmosg.data.bad_samples import BadSample, BadSampleLimit
from kosmosg.data.mixture import Mixture, ReadAhead, Source
from kosmosg.data.opening import identify_data, open_data
from kosmosg.data.options import DataOptions, StreamOptions
from kosmosg.data.packing import PackedMixture
from kosmosg.data.preprocessing import Prepared
from kosmosg.data.revisions import fix_revisions
from kosmosg.data.schema import CaptionRules, CaptionSample, Sample, Shard
from kosmosg.errors import DataError
from kosmosg.prompts.images import clip_pixels, target_pixels
from kosmosg.prompts.tokenizer import TokenizedPrompt
from kosmosg.training.options import LoopOptions
from kosmosg.training.stage import Stream, close_stream

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TrainingData(StreamOptions):
    """What is read, and in which order.

    Attributes:
        seed: Decides the order and every random choice.
    """

    seed: int = 0

    @classmethod
    def of(cls, options: DataOptions, loop: LoopOptions) -> "TrainingData":
        """Bring together what is read, at the commits that the run began with, and its seed.

        Raises:
            DataError: If the Hub does not know a set.
        """
        data = fix_revisions(options.data, loop.output)
        return cls(**{**vars(options), "data": data}, seed=loop.seed)

    def identity(self) -> dict[str, Any]:
        """Return what a resumed run must have in common with the one it goes on with.

        Raises:
            DataError: If the data are not there.
        """
        data = [[identify_data(each), each.weight] for each in self.data]
        return {"data": data, "min_side": self.min_side}

    @property
    def limit(self) -> BadSampleLimit:
        """When bad samples stop the run; an image that is too small is none."""
        return BadSampleLimit(share=self.bad_share, exempt=frozenset({"too-small"}))

    def shards(self) -> list[Shard]:
        """List the files of all sets, to be read once each.

        Raises:
            DataError: If a set is weighted, which has no meaning here.
        """
        for data in self.data:
            if data.repository:
                raise DataError(
                    f"{data.name} is read from a folder here, because each image is encoded once: "
                    f"hf download --repo-type dataset {data.repository} --local-dir FOLDER, then "
                    "name FOLDER."
                )
            if data.weight != 1:
                raise DataError(
                    f"{data.name} is given the weight {data.weight:g}, but all images are read "
                    "equally often here: each is encoded once. Name the folder without a weight."
                )
        rules = CaptionRules(min_side=self.min_side)
        return [shard for data in self.data for shard in open_data(data, rules)]

    def mixture(
        self,
        prepare: Callable[[Sample, np.random.Generator], T],
        rank: int,
        world_size: int,
        *,
        text_only: bool = False,
        ahead: ReadAhead | None = None,
    ) -> Mixture[T]:
        """Open the stream of one process.

        Args:
            prepare: Makes what the stage reads of a sample.
            rank: Number of the process.
            world_size: Number of processes.
            text_only: Leave the images of captions closed.
            ahead: Threads shared with other streams; by default there are ``threads`` for this one.
        """
        rules = CaptionRules(text_only=text_only, min_side=self.min_side)
        return Mixture(
            (
                Source(
                    name=data.name,
                    shards=open_data(data, rules),
                    weight=data.weight,
                    prepare=prepare,
                )
                for data in self.data
            ),
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            limit=self.limit,
            ahead=ahead or ReadAhead(self.threads),
        )

    def packed(
        self, prepare: Callable[..., Any], rank: int, world_size: int, *, tokens: int, streams: int
    ) -> Stream:
        """Open the stream of packed sequences of one process.

        Documents are packed in several streams, each from its own share of them. A process fills
        its part of the packing streams in turn, so their number alone decides the sequences.

        Args:
            prepare: Makes documents of samples.
            rank: Number of the process.
            world_size: Number of processes.
            tokens: Length of a sequence.
            streams: Of packing; a multiple of the number of processes.

        Raises:
            DataError: If it is none.
        """
        if streams < 1 or streams % world_size:
            raise DataError(
                f"{streams} packing streams cannot be shared out evenly among {world_size} "
                "processes. Choose a multiple of their number for --packing-streams."
            )
        ahead = ReadAhead(self.threads, streams=streams // world_size)
        return RoundRobin(
            [
                PackedMixture(self.mixture(prepare, number, streams, ahead=ahead), tokens)
                for number in range(rank, streams, world_size)
            ]
        )


class RoundRobin(Stream):
    """Several streams as one, which gives from each in turn."""

    def __init__(self, streams: Sequence[Stream]):
        self._streams = streams
        self._turn = 0

    def __next__(self) -> Any:
        """Give the next sample of the stream whose turn it is."""
        sample = next(self._streams[self._turn])
        self._turn = (self._turn + 1) % len(self._streams)
        return sample

    @property
    def skipped(self) -> dict[str, dict[str, int]]:
        """How many samples of each source all streams have skipped, by reason."""
        return add_counts(stream.skipped for stream in self._streams)

    def state_dict(self) -> dict[str, Any]:
        """Return where every stream stands."""
        return {"turn": self._turn, "streams": [stream.state_dict() for stream in self._streams]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._turn = state["turn"]
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.load_state_dict(saved)

    def close(self) -> None:
        """End the threads that read ahead."""
        for stream in self._streams:
            close_stream(stream)


def prepare_image(
    sample: Sample, _: np.random.Generator, *, image_size: int | None, target_size: int | None
) -> Prepared:
    """Make of a captioned image what CLIP (``image_size``) or a VAE (``target_size``) reads.

    Raises:
        BadSample: If it is something else, or has no image.
    """
    if not isinstance(sample, CaptionSample) or sample.image is None:
        raise BadSample("wrong-kind", f"no captioned image: {type(sample).__name__}")
    return Prepared(
        prompt=TokenizedPrompt(ids=(), image_mask=()),
        pixels=(clip_pixels(sample.image, image_size),) if image_size else (),
        target=target_pixels(sample.image, target_size).astype(np.float32) if target_size else None,
        caption=sample.caption,
    )


def image_preparer(
    *, image_size: int | None = None, target_size: int | None = None
) -> Callable[[Sample, np.random.Generator], Prepared]:
    """Fix the sizes of ``prepare_image``."""
    return partial(prepare_image, image_size=image_size, target_size=target_size)


def add_counts(parts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """Add up what was skipped of each source, by reason."""
    whole: dict[str, Counter[str]] = {}
    for part in parts:
        for source, counts in part.items():
            whole.setdefault(source, Counter()).update(counts)
    return {source: dict(counts) for source, counts in whole.items()}
