"""Every row of the table: what is measured, against what, and what is wanted."""

from dataclasses import dataclass

PRECISIONS = ("float32", "bfloat16", "float16")
CUDA, BFLOAT16 = "cuda", "bfloat16"
# What a row may change in a picture, in dB. Above 50 nobody sees a difference in 8 bits; another
# precision moves a picture more, and 30 is where a difference begins to be seen.
SAME, CLOSE = 50.0, 30.0

PLAIN = "plain StableDiffusionPipeline, ready embeddings"
STRAIGHT = "two passes, logits computed, nothing kept"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a row should reach at full size.

    Attributes:
        limit: The bound, of the ratio or of what is measured.
        measured: The bound is one of the measured value, in the row's unit.
        at_least: The bound is a lower one.
        device: The kind of device that it is meant for, if not for all.
    """

    limit: float
    measured: bool = False
    at_least: bool = False
    device: str = ""

    def met(self, ratio: float, value: float) -> bool:
        """Compare the medians with the bound."""
        found = value if self.measured else ratio
        return found >= self.limit if self.at_least else found <= self.limit


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row before it is measured.

    Attributes:
        name: Names it in JSON.
        suite: Which of ``suites`` measures it.
        title: What is measured.
        baseline: What it is divided by.
        unit: Of both: "s", "GB" or "TFLOP/s".
        target: At full size.
        needs: What the machine must have: a CUDA device, or bfloat16 arithmetic.
        fidelity: Least PSNR in dB against the plain path.
    """

    name: str
    suite: str
    title: str
    baseline: str
    unit: str = "s"
    target: Target | None = None
    needs: tuple[str, ...] = ()
    fidelity: float | None = None


def needs_of(precision: str) -> tuple[str, ...]:
    """Float16 is for GPUs: few CPUs compute in it."""
    return {"float32": (), "bfloat16": (BFLOAT16,), "float16": (CUDA,)}[precision]


def _prediction_rows() -> list[Row]:
    rows = [
        Row(
            name=f"prediction-{precision}",
            suite="prediction",
            title=f"a whole prediction of 50 steps, {precision}",
            baseline=f"{PLAIN}, {precision}",
            target=Target(limit=1.03),
            needs=needs_of(precision),
            fidelity=SAME,
        )
        for precision in PRECISIONS
    ]
    return [
        *rows,
        Row(
            name="bfloat16",
            suite="prediction",
            title="a whole prediction in bfloat16",
            baseline="the same in float32",
            target=Target(limit=0.6, device="cpu"),
            needs=(BFLOAT16,),
            fidelity=CLOSE,
        ),
        Row(
            name="float16",
            suite="prediction",
            title="a whole prediction in float16",
            baseline="the same in float32",
            needs=(CUDA,),
            fidelity=CLOSE,
        ),
    ]


def _conditioning_rows() -> list[Row]:
    rows = []
    for precision in PRECISIONS:
        for negative, limit in (("empty", 0.85), ("real", 1.0)):
            rows.append(
                Row(
                    name=f"conditioning-{negative}-{precision}",
                    suite="conditioning",
                    title=f"conditioning, one image, {negative} negative prompt, {precision}",
                    baseline=STRAIGHT,
                    target=Target(limit=limit),
                    needs=needs_of(precision),
                    fidelity=SAME,
                )
            )
    batch = Row(
        name="conditioning-batch",
        suite="conditioning",
        title="prompt and real negative prompt in one padded batch",
        baseline="one pass each, as the pipeline does",
        fidelity=CLOSE,
    )
    return [*rows, batch]


def _decoder_rows() -> list[Row]:
    return [
        Row(
            name="attention",
            suite="decoder",
            title="scaled_dot_product_attention (diffusers' default)",
            baseline="attention written out",
            fidelity=CLOSE,
        ),
        *(
            Row(
                name=name,
                suite="decoder",
                title=title,
                baseline=PLAIN,
                needs=needs,
                fidelity=CLOSE,
            )
            for name, title, needs in (
                ("channels-last", "channels-last U-Net and VAE decoder", ()),
                ("compiled", "torch.compile and channels-last", (CUDA,)),
                ("cuda-graphs", "the same with CUDA graphs", (CUDA,)),
                ("autotuned", "the same with CUDA graphs and autotuning", (CUDA,)),
            )
        ),
    ]


def _throughput_rows() -> list[Row]:
    rows = [
        Row(
            name=f"batch-{count}",
            suite="throughput",
            title=f"seconds per picture at num_images={count}",
            baseline="at num_images=1",
            needs=(CUDA,),
        )
        for count in (4, 8)
    ]
    for count, limit in ((1, 0.25), (8, 0.32)):
        for way, title in (("", ""), ("compiled-", ", compiled")):
            pictures = "one picture" if count == 1 else f"{count} pictures"
            rows.append(
                Row(
                    name=f"peak-{way}{count}",
                    suite="throughput",
                    title=f"arithmetic rate of {pictures}{title}",
                    baseline="measured peak of matrix products in that precision",
                    unit="TFLOP/s",
                    target=Target(limit=limit, at_least=True, device="cuda"),
                    needs=() if (count, way) == (1, "") else (CUDA,),
                )
            )
    return rows


def _opening_rows() -> list[Row]:
    reading = "reading the same files"
    return [
        *(
            Row(
                name=f"opening-{state}",
                suite="opening",
                title=f"opening weights in their stored precision, page cache {state}",
                baseline=f"{reading}, page cache {state}",
                target=Target(limit=1.5),
            )
            for state in ("warm", "cold")
        ),
        Row(
            name="opening-memory",
            suite="opening",
            title="peak memory of opening them, mapped files included",
            baseline="size of the weights",
            unit="GB",
            target=Target(limit=1.15),
        ),
        Row(
            name="setup",
            suite="opening",
            title="setup() of the server, its default precision",
            baseline=f"{reading}, page cache warm",
        ),
        Row(
            name="setup-memory",
            suite="opening",
            title="peak memory of setup()",
            baseline="size of the weights",
            unit="GB",
        ),
    ]


ROWS: tuple[Row, ...] = (
    *_prediction_rows(),
    *_conditioning_rows(),
    *_decoder_rows(),
    *_throughput_rows(),
    *_opening_rows(),
    Row(
        name="conversion",
        suite="conversion",
        title="converting a .pt checkpoint",
        baseline="copying the file",
        target=Target(limit=3.0),
    ),
    Row(
        name="conversion-memory",
        suite="conversion",
        title="peak memory of it, mapped files included",
        baseline="size of the checkpoint",
        unit="GB",
        target=Target(limit=8.0, measured=True),
    ),
    Row(
        name="first-picture",
        suite="start",
        title="from the start of a process to its first picture",
        baseline=f"{PLAIN}, likewise",
        needs=(CUDA,),
    ),
    Row(
        name="device-memory",
        suite="start",
        title="peak memory of the device",
        baseline="size of the weights",
        unit="GB",
        needs=(CUDA,),
    ),
)
ROW = {row.name: row for row in ROWS}
SUITES: tuple[str, ...] = tuple(dict.fromkeys(row.suite for row in ROWS))
