"""Weights on the Hugging Face Hub: a repository with a weights folder and a model card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, ModelCardData
from huggingface_hub.utils import filter_repo_objects

from kosmosg.checkpoints.folder import PATTERNS, TRAINING_PATTERNS
from kosmosg.checkpoints.history import read_history
from kosmosg.errors import WeightsError
from kosmosg.utils.hub import explain

STAGES = {
    "none": "untrained",
    "lm": "after stage 1, language modelling: AlignerNet is not trained",
    "align": "after stage 2, aligning with CLIP",
    "instruct": "after stage 3, compositional instruction tuning",
}
CARD = """
# KOSMOS-G

Generates images of the subjects in its input images, from one interleaved prompt
([KOSMOS-G, arXiv:2310.02992](https://arxiv.org/abs/2310.02992)): {stage}.

```python
from PIL import Image
from kosmosg import KosmosGPipeline

pipe = KosmosGPipeline.from_pretrained("{repository}")
pipe("<i> on the beach", [Image.open("cat.jpg")]).images[0].save("beach.png")
```

After `import kosmosg`, diffusers opens it too: `DiffusionPipeline.from_pretrained("{repository}")`.

| part | size |
|---|---|
| language model | {layers} layers, {width} wide, {symbols} symbols |
| input images | {image_size} × {image_size} pixels, {slots} vectors each |
| condition | {queries} × {dim} |
| images | {side} × {side} pixels |
| safety checker | {checker} |
| precision | {precision} |
"""
HISTORY_TITLE = """
## Training

| stage | data | updates × batch | learning rate | last loss |
|---|---|---|---|---|
"""
# Of Stable Diffusion v1.5, whose decoder is in the weights as it is.
LICENCE = "creativeml-openrail-m"


def make_card(
    pipeline: Any,
    repository: str,
    *,
    history: Sequence[dict[str, Any]] = (),
    tables: Sequence[str] = (),
    licence: str = LICENCE,
) -> ModelCard:
    """Describe a ``KosmosGPipeline`` for who finds it on the Hub.

    Args:
        pipeline: What is described.
        repository: What it is called there.
        history: What it was trained on, as ``history`` reads it.
        tables: Of evaluations, in Markdown.
        licence: As the Hub calls it.
    """
    model = pipeline.kosmosg
    text, aligner = model.config.kosmos2.text_config, model.config.aligner_config
    data = ModelCardData(
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["kosmos-g", "diffusers:KosmosGPipeline"],
        license=licence,
        datasets=sorted(set(_sets(history))) or None,
    )
    body = CARD.format(
        repository=repository,
        stage=STAGES.get(model.config.stage, model.config.stage),
        layers=text.layers,
        width=text.embed_dim,
        symbols=model.vocabulary_size,
        image_size=model.image_size,
        slots=model.image_slots,
        queries=aligner.queries,
        dim=aligner.dim,
        side=pipeline.default_size,
        checker="yes" if pipeline.safety_checker else "no",
        precision=str(model.dtype).removeprefix("torch."),
    )
    if history:
        body += HISTORY_TITLE + "".join(map(_row, history))
    for table in tables:
        body += f"\n## Evaluation\n\n{table.strip()}\n"
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{body}")


def _sets(history: Sequence[dict[str, Any]]) -> list[str]:
    """Name the sets on the Hub, whose names alone have a commit behind them."""
    return [name.partition("@")[0] for each in history for name in each["data"] if "@" in name]


def _row(entry: dict[str, Any]) -> str:
    cells = (
        entry["stage"],
        "<br>".join(entry["data"]),
        f"{entry['updates']} × {entry['batch_size']}",
        entry.get("learning_rate", "–"),
        f"{entry['loss']:.4g}" if isinstance(entry.get("loss"), float) else "–",
    )
    texts = (" ".join(str(cell).replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(texts)} |\n"


def publish(
    folder: Path,
    repository: str,
    pipeline: Any,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    licence: str = LICENCE,
    tables: Sequence[str] = (),
) -> str:
    """Upload a weights folder, with a model card unless the repository has one.

    Of the folder goes what is read of a repository, and a card of its own, ``README.md``.

    Args:
        folder: What ``save_pretrained`` wrote.
        repository: ``owner/name``, or a name among those of the token's owner; made if missing.
        pipeline: What was saved.
        private: Whether a repository that is made is to be seen by its owner alone.
        token: Of someone who may write; the one that is logged in by default.
        commit_message: In the repository's history.
        create_pr: Ask for the change instead of making it.
        licence: For the card, as the Hub calls it.
        tables: Of evaluations, for the card.

    Returns:
        The address of the commit.

    Raises:
        WeightsError: If the Hub cannot be reached or refuses it.
    """
    api = HfApi(token=token)
    history = read_history(folder) or (read_history(pipeline.folder) if pipeline.folder else [])
    own_card = folder / "README.md"
    try:
        name = api.create_repo(repository, private=private, exist_ok=True).repo_id
        operations = [
            CommitOperationAdd(path_in_repo=file, path_or_fileobj=folder / file)
            for file in _list_files(folder)
        ]
        if own_card.is_file():
            operations.append(CommitOperationAdd("README.md", own_card))
        elif not api.file_exists(name, "README.md"):
            card = make_card(pipeline, name, history=history, tables=tables, licence=licence)
            operations.append(CommitOperationAdd("README.md", str(card).encode()))
        return api.create_commit(
            name,
            operations,
            commit_message=commit_message or f"Upload {type(pipeline).__name__}",
            create_pr=create_pr,
        ).commit_url
    except Exception as error:
        # The client's own errors, those of its HTTP library and those of the disk.
        raise WeightsError(explain(error, repository)) from error


def _list_files(folder: Path) -> list[str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    return list(filter_repo_objects(names, allow_patterns=[*PATTERNS, *TRAINING_PATTERNS]))
