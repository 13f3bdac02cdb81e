"""``upload``: weights to the Hub, with a model card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from kosmosg.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Push a weights folder to the Hub, with a model card.

    Attributes:
        folder: Weights folder, such as the result of a stage.
        repository: OWNER/NAME, or a name among yours; made if it is not there.
        licence: Of the weights, as the Hub calls it.
        table: Table of an evaluation for the card, such as outputs/dreambench/table.md; repeat it
            for several.
        private: Let nobody else see a repository that is made.
        pull_request: Ask for the change instead of making it.
    """

    folder: Positional[Path]
    repository: Positional[str]
    licence: Annotated[str, arg(aliases=["--license"])] = "creativeml-openrail-m"
    table: tuple[Path, ...] = ()
    private: bool = False
    pull_request: bool = False

    def run(self) -> None:
        """Check that the weights open, and push them."""
        from kosmosg.checkpoints.folder import stored_precision
        from kosmosg.checkpoints.publishing import publish
        from kosmosg.pipeline import KosmosGPipeline

        tables = [_read(file) for file in self.table]
        pipeline = KosmosGPipeline.from_pretrained(
            self.folder, torch_dtype=stored_precision(self.folder), device="cpu"
        )
        print(
            publish(
                self.folder,
                self.repository,
                pipeline,
                private=self.private,
                create_pr=self.pull_request,
                licence=self.licence,
                tables=tables,
            )
        )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingError(
            f"--table {file} is no text in UTF-8. Name the table.md of an evaluation."
        ) from error
