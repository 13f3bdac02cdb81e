"""How a pipeline is opened, saved and published: ``from_pretrained`` and its counterparts.

Stricter than diffusers' own, and with safetensors alone: what that leaves no room for is refused.
"""

import tempfile
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline

from kosmosg.checkpoints.folder import (
    COMPONENTS,
    OPTIONAL_COMPONENTS,
    check_layout,
    locate_weights,
    open_part,
    write_model_index,
)
from kosmosg.checkpoints.publishing import publish
from kosmosg.errors import SettingError
from kosmosg.utils.devices import choose_device

Precisions = torch.dtype | dict[str, torch.dtype] | None


class PretrainedPipeline(DiffusionPipeline):
    """A pipeline of diffusers that lies in weights folders.

    Attributes:
        folder: Where it was opened, if it was.
    """

    folder: Path | None = None

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        source: str | Path,
        *,
        torch_dtype: Precisions = None,
        dtype: Precisions = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **components: Any,
    ) -> Self:
        """Open weights, every tensor of which must be there, fit and be finite.

        Args:
            source: A folder in the diffusers layout, as ``kosmosg convert`` writes it, or a
                repository of the Hub (``owner/name``), of which only safetensors are read.
            torch_dtype: Precision; float16 on CUDA and float32 elsewhere by default. A dictionary
                gives components one of their own, and the others that under ``"default"``.
            dtype: Another name of ``torch_dtype``.
            device: CUDA if there is one, by default.
            revision: Branch, tag or commit of the repository.
            cache_dir: Where repositories are kept; the Hub's usual cache by default.
            token: For a repository that is not public.
            local_files_only: Ask nobody; take what is in the cache.
            force_download: Fetch again what is in the cache.
            components: Ready ones, by name, which are taken in place of those in the folder.

        Raises:
            WeightsError: If something is missing, damaged or of another model.
            SettingError: If there is no such device or option.
        """
        _refuse_unknown(components)
        folder = locate_weights(
            source,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        check_layout(folder, without=components, name=source)
        device = choose_device(device)
        precisions = torch_dtype or dtype
        pipeline = cls(**_open_others(folder, components, precisions, device))
        pipeline.register_to_config(_name_or_path=str(source))
        pipeline.folder = folder
        return pipeline if device.type == "cpu" else pipeline.to(device)

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **options: Any,
    ) -> None:
        """Write a weights folder: diffusers layout, safetensors only.

        Args:
            save_directory: The folder.
            safe_serialization: Must be true: pickles are neither written nor read.
            variant: Must be ``None``: a folder holds one precision.
            max_shard_size: How large a file may become, such as ``"5GB"``.
            push_to_hub: Upload the folder afterwards, see ``push_to_hub``.
            options: Of ``push_to_hub``; ``repo_id`` is the folder's name by default.

        Raises:
            SettingError: If something is asked for that is not done here.
        """
        if not safe_serialization or variant is not None:
            raise SettingError(
                f"safe_serialization={safe_serialization!r}, variant={variant!r}: weights are "
                "written as safetensors and without a variant. Leave both out."
            )
        folder = Path(save_directory)
        super().save_pretrained(str(folder), max_shard_size=max_shard_size)
        # Names that stay where they are, in place of the modules that define the classes.
        write_model_index(folder)
        if push_to_hub:
            publish(folder, options.pop("repo_id", folder.name), self, **options)

    def push_to_hub(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, repo_id: str, **options: Any
    ) -> str:
        """Upload to the Hub, with a model card unless the repository has one.

        Args:
            repo_id: ``owner/name``, or a name among those of the token's owner.
            options: private, token, commit_message, create_pr; see ``publishing.publish``.

        Returns:
            The address of the commit.

        Raises:
            WeightsError: If the Hub cannot be reached or refuses it.
        """
        with tempfile.TemporaryDirectory(prefix="kosmosg-") as folder:
            self.save_pretrained(folder)
            return publish(Path(folder), repo_id, self, **options)


def _refuse_unknown(options: dict[str, Any]) -> None:
    names = (*COMPONENTS, *OPTIONAL_COMPONENTS)
    if unknown := sorted(options.keys() - set(names)):
        raise SettingError(
            f"KosmosGPipeline.from_pretrained has no option {', '.join(unknown)}. Components "
            f"that can be given are {', '.join(names)}."
        )


def _open_others(
    folder: Path, given: dict[str, Any], precisions: Precisions, device: torch.device
) -> dict[str, Any]:
    """Open the components that were not given, each in its precision, and return all."""
    default = torch.float16 if device.type == "cuda" else torch.float32
    dtypes = precisions if isinstance(precisions, dict) else {"default": precisions or default}
    default = dtypes.get("default", default)
    return {
        name: given[name] if name in given else open_part(name, folder, dtypes.get(name, default))
        for name in (*COMPONENTS, *OPTIONAL_COMPONENTS)
    }
