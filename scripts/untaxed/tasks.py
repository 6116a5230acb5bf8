"""Task files: lm-eval's YAML without a data source, with three keys of ours.

lm_eval     a file below lm_eval/tasks of the installed lm-eval to start from: its prompt, filters, stop strings and metrics; keys here win
filter      the one of several filters whose result counts
documents   {field: key of the row}: what a task needs of a row besides id, prompt, target and category; `meta.x` looks inside
"""

from functools import reduce
from pathlib import Path
from typing import Any

from untaxed.records import UserError

# A task of lm-eval's own brings these; data, examples and sampling come from the configuration here.
DROPPED = (
    *("task", "task_alias", "tag", "group", "dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split"),
    *("test_split", "fewshot_split", "fewshot_config", "num_fewshot", "repeats"),
)


def read_task(path: Path | str) -> tuple[dict[str, Any], dict[str, str]]:
    """(what lm-eval's ConfigurableTask takes, `documents`) of a task file.

    Raises UserError for a file of lm-eval that is not there, a task that does not generate or runs code without our sandbox, and
    a choice of filters that is missing or unknown.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(path)
    if own := config.pop("lm_eval", None):
        file = _lm_eval_file(path, own)
        if load_yaml(file, resolve_func=False).get("unsafe_code"):  # its module loads its grader from the hub when it is imported
            raise UserError(f"{path}: lm_eval: {own} runs code outside of the sandbox; grade it as python_function.yaml does")
        config = {key: value for key, value in load_yaml(file).items() if key not in DROPPED} | config
    documents, chosen = config.pop("documents", {}), config.pop("filter", None)
    if config.get("output_type") != "generate_until":
        raise UserError(f"{path}: output_type: must be generate_until; every benchmark here is generated and kept")
    filters = config.get("filter_list") or []
    if chosen is not None or len(filters) > 1:
        config["filter_list"] = [entry for entry in filters if entry["name"] == chosen]
        if len(config["filter_list"]) != 1:
            names = ", ".join(entry["name"] for entry in filters) or "none"
            raise UserError(f"{path}: filter: must name one of those of the task ({names}); a sample has one score")
    return config, documents


def _lm_eval_file(path: Path | str, name: str) -> Path:
    import lm_eval.tasks

    folder = Path(lm_eval.tasks.__file__).parent
    if not (folder / name).is_file():
        found = sorted(file.relative_to(folder).as_posix() for file in (folder / name).parent.glob("*.yaml"))
        raise UserError(f"{path}: lm_eval: the installed lm-eval has no task file {name!r}; beside it: {', '.join(found) or 'nothing'}")
    return folder / name


def document(row: dict, repeat: int, fields: dict[str, str], task: Path | str) -> dict[str, Any]:
    """The fields that a task may use of a row. Raises UserError for a key that the row does not have."""
    made = {"id": row["id"], "repeat": repeat, "prompt": row["prompt"], "target": row.get("target") or "", "category": row["category"]}
    for field, key in fields.items():
        try:
            made[field] = reduce(lambda value, part: value[part], key.split("."), row)
        except (KeyError, TypeError):
            raise UserError(f"{task}: documents.{field}: row {row['id']} has no {key!r}; it has {', '.join(row)}") from None
    return made
