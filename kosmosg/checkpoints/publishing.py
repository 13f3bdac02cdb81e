"""Weights on the Hugging Face Hub: a repository with a weights folder and a model card."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData

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


def make_card(pipeline: Any, repository: str) -> ModelCard:
    """Describe a ``KosmosGPipeline`` for who finds it on the Hub."""
    model = pipeline.kosmosg
    text, aligner = model.config.kosmos2.text_config, model.config.aligner_config
    data = ModelCardData(
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["kosmos-g", "diffusers:KosmosGPipeline"],
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
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{body}")


def publish(
    folder: Path,
    repository: str,
    pipeline: Any,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload a weights folder, with a model card unless the repository has one.

    Args:
        folder: What ``save_pretrained`` wrote.
        repository: ``owner/name``, or a name among those of the token's owner; made if missing.
        pipeline: What was saved.
        private: Whether a repository that is made is to be seen by its owner alone.
        token: Of someone who may write; the one that is logged in by default.
        commit_message: In the repository's history.
        create_pr: Ask for the change instead of making it.

    Returns:
        The address of the commit.

    Raises:
        WeightsError: If the Hub cannot be reached or refuses it.
    """
    api = HfApi(token=token)
    try:
        name = api.create_repo(repository, private=private, exist_ok=True).repo_id
        if not api.file_exists(name, "README.md"):
            make_card(pipeline, name).save(folder / "README.md")
        return api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message=commit_message or f"Upload {type(pipeline).__name__}",
            create_pr=create_pr,
        ).commit_url
    except Exception as error:
        # The client's own errors, those of its HTTP library and those of the disk.
        raise WeightsError(explain(error, repository)) from error
