"""A run in the form that huggingface_hub's mixin asks for; `hub` is the way in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, snapshot_download

from lengthwise.interop.folders import PATTERNS, card_text, refuse_others, write_folder
from lengthwise.runs.run import Run


class RunOnHub(
    ModelHubMixin,
    library_name="lengthwise",
    tags=["lengthwise", "arithmetic", "length-generalization", "arxiv:2310.11984"],
):
    """A run, saved, loaded and pushed by the mixin's own methods.

    Not `PyTorchModelHubMixin`, whose loading falls back to pickles: what is saved is a run folder, whose
    config.json and model.safetensors are those that the mixin would write.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def _save_pretrained(self, save_directory: Path) -> None:
        write_folder(self.run, Path(save_directory))

    @classmethod
    def _from_pretrained(  # type: ignore[override]
        cls,
        *,
        model_id: str,
        device: str | None = None,
        **options: Any,
    ) -> RunOnHub:
        folder = model_id
        if not os.path.isdir(model_id):
            folder = snapshot_download(model_id, allow_patterns=[*PATTERNS], **options)
        refuse_others(Path(folder))
        return cls(Run.open(folder, device=device))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        data = self._hub_mixin_info.model_card_data  # type: ignore[attr-defined]
        return ModelCard(f"---\n{ModelCardData(**data.to_dict())}\n---\n\n{card_text(self.run)}")
