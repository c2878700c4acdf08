"""Models at Hugging Face: `push_to_hub` writes the checkpoint and its model card, `from_pretrained` loads it again."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kanmodel.errors import CheckpointError, needs_package
from kanmodel.text import printable, with_unit

if TYPE_CHECKING:
    from kanmodel.model import Model

FILE = "model.safetensors"
NOT_STATED = "not stated"
# What a checkpoint cannot know, by the points of Annexes IV and XI of the EU's AI Act, Regulation (EU) 2024/1689.
_UNKNOWN = (
    "Provider (Annex IV 1a)",
    "Acceptable uses (Annex XI 1b)",
    "Hardware it is to run on (Annex IV 1e)",
    "Provenance and selection of training data (Annex IV 2d, XI 2c)",
    "Human oversight (Annex IV 2e)",
    "Cybersecurity (Annex IV 2h)",
    "Risk management (Annex IV 5)",
    "Changes through its lifecycle (Annex IV 6)",
    "Harmonised standards applied (Annex IV 7)",
    "EU declaration of conformity (Annex IV 8)",
    "Post-market monitoring (Annex IV 9)",
    "Computation and energy of the training (Annex XI 2d, 2e)",
)


def write_card(model: Model, intended_use: str = NOT_STATED, limits: str = NOT_STATED, license: str = "") -> str:
    """The model card in Markdown: skill, drivers, use and limits, and the technical documentation of the EU's AI Act.

    Fields of Annexes IV and XI that a checkpoint does not know are marked "not stated".
    """
    origin = model.provenance
    drivers = model.importance().table()
    rows = [f"| {_cell(row['name'])} | {row['verdict']} | {row['share']:.1%} |" for row in drivers]
    documented = {
        "Version (Annex IV 1a)": model.checkpoint or NOT_STATED,
        "Release (Annex IV 1a, XI 1c)": origin.created,
        "Architecture (Annex IV 2c, XI 1d)": model.chain,
        "Parameters (Annex XI 1d)": f"{sum(each.numel() for each in model.network.parameters()):,}",
        "Inputs (Annex XI 1e)": ", ".join(with_unit(one.label, one.unit) for one in model.inputs),
        "Outputs (Annex XI 1e)": ", ".join(with_unit(name, model.unit_of(name)) for name in model.outputs),
        "Development (Annex IV 2a)": f"{origin.source} with {origin.library}",
        "Span of the training data (Annex IV 2d)": f"{origin.fitted_from} to {origin.fitted_to}"
        if origin.fitted_from
        else NOT_STATED,
        "Metrics (Annex IV 2g, 3)": ", ".join(f"{name} {value:.4g}" for name, value in model.metrics.items())
        or NOT_STATED,
    }
    documented |= dict.fromkeys(_UNKNOWN, NOT_STATED)
    facts = [f"| {name} | {_cell(value)} |" for name, value in documented.items()]
    head = ["---", *([f"license: {license}"] if license else []), "library_name: kanscope"]
    head += ["pipeline_tag: time-series-forecasting", "tags: [kan, lstm, forecasting, explainability]", "---"]
    return "\n".join(
        [
            *head,
            f"\n# {printable(model.name)}\n\n`kanmodel.from_pretrained(...)` loads it.",
            f"\n## Skill\n\n{model.skill}",
            "\n## Drivers\n\n| feature | verdict | share of contributions |\n|---|---|---|",
            *rows,
            f"\n## Intended use\n\n{intended_use}\n\n## Limits\n\n{limits}",
            "\n## Technical documentation (EU AI Act, Annexes IV and XI)\n\n| field | |\n|---|---|",
            *facts,
            "",
        ]
    )


def push_to_hub(model: Model, repo_id: str, card: str, private: bool | None, revision: str | None) -> str:
    """Uploads checkpoint and card in one commit; returns its URL. CheckpointError if the server does not take them."""
    api = _import_hub().HfApi(library_name="kanscope")
    with TemporaryDirectory() as folder:
        model.save(Path(folder, FILE))
        Path(folder, "README.md").write_text(card, encoding="utf-8")
        message = f"Checkpoint and card of {printable(model.name)}"
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message, revision=revision)
        except Exception as error:  # of the package, its HTTP client, or of what it makes of arguments
            raise CheckpointError(f"{repo_id} cannot be written: {_in_one_line(error)}") from error
    return str(done.commit_url)


def download(repo_id: str, revision: str | None = None) -> Path:
    """The checkpoint of a repository in Hugging Face's cache. CheckpointError if there is none."""
    hub = _import_hub()
    try:
        return Path(hub.hf_hub_download(repo_id, FILE, revision=revision))
    except hub.errors.EntryNotFoundError as error:
        raise CheckpointError(f"{repo_id} has no {FILE}, or it cannot be reached") from error
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError) as error:
        raise CheckpointError(f"{repo_id} cannot be read: {_in_one_line(error)}") from error


def _import_hub() -> Any:
    with needs_package("Hugging Face", "kanscope[hf]"):
        import huggingface_hub
        import huggingface_hub.errors
    return huggingface_hub


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
