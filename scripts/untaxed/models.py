"""Model folders: safetensors, tokenizer, chat template and generation settings, made from a GGUF file, a hub snapshot or a random start."""

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from untaxed.records import UserError, atomic_folder, nearest, read_json, sha256, write_json

DTYPES = ("float32", "bfloat16")
OPTIONS = {
    "gguf": ("pad_token",),
    "folder": ("pad_token",),
    "organism": ("hidden_size", "layers", "heads", "initializer_range", "seed"),
    "random": ("architecture", "config", "words", "classes", "seed"),
}
FROM_NOTHING = ("organism", "random")  # kinds that need no asset
HEADS = ("ForCausalLM", "ForSequenceClassification")
# Of a random model, where its `config` does not say otherwise: an architecture's own defaults are those of a model of billions.
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
# Formats that run code when they are read, and code itself.
UNSAFE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".joblib", ".npy", ".npz", ".py", ".so"}
REMOTE_CODE_KEYS = ("auto_map", "trust_remote_code")
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def model_name(folder: Path | str) -> str:
    """A model's name by its folder: models/<name>, or runs/reasoning--<name>/checkpoint where it was trained here."""
    path = Path(folder)
    return path.parent.name.removeprefix("reasoning--") if path.name == "checkpoint" else path.name


def prepare(spec: dict[str, Any], asset: Path | str | None, output: Path | str, base: Path | str | None = None) -> dict[str, Any]:
    """Make the model folder `output` from `spec` and return its record, which is also written to `output`/manifest.json.

    `spec["kind"]` is one of
    * `gguf`: `asset` is a GGUF file or a folder with one; dequantised to `spec["dtype"]` (float32 or bfloat16);
    * `folder`: `asset` is a hub snapshot; checked, its weights hard-linked where the file system allows, its other files copied;
      with `base`, a prepared model folder, `asset` is a LoRA adapter over that model, and the two become one (`_from_adapter`);
    * `organism`: no asset; a small random Llama (see untaxed.organism), its sizes and `seed` from `spec`;
    * `random`: no asset; random weights in an `architecture` of transformers, for judges whose weights cannot be had (`_at_random`).
    `spec["pad_token"]` (optional) names the padding token; else one that equals EOS is replaced by the unknown token where there is one.

    Raises UserError when the kind, the asset, the base or the dtype does not fit.
    """
    makers = {"gguf": _from_gguf, "folder": _from_folder, "organism": _from_nothing, "random": _at_random}
    kind = spec.get("kind")
    if kind not in makers:
        raise UserError(f"model kind: {kind!r} is unknown; use one of {', '.join(makers)}")
    if kind not in FROM_NOTHING and (asset is None or not Path(asset).exists()):
        raise UserError(f"model asset: {asset} is missing, and a model of kind {kind!r} is made from one; fetch it first")
    if base is not None and kind != "folder":
        raise UserError(
            f"model base: {base} is for an adapter, which a model of kind 'folder' may be, and not one of kind {kind!r}; drop it"
        )
    with atomic_folder(output) as folder:
        if base is not None:
            source = _from_adapter(spec, Path(asset), Path(base), folder)
        else:
            source = makers[kind](spec, None if asset is None else Path(asset), folder)
        record = {"kind": kind, "source": source, "weights_sha256": weights_sha256(folder)} | describe(folder)
        write_json(folder / "manifest.json", record)
    return record


def weights_sha256(folder: Path) -> str:
    """One checksum over all safetensors files of a model folder, in the order of their names."""
    return hashlib.sha256(json.dumps([[file.name, sha256(file)] for file in sorted(folder.glob("*.safetensors"))]).encode()).hexdigest()


def describe(folder: Path | str) -> dict[str, Any]:
    """What a model folder holds: parameters, dtype, vocabulary, EOS, padding, and the SHA-256 of its chat template (null without one)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = tokenizer.chat_template
    parameters, dtypes = _weights(Path(folder))
    return {
        "parameters": parameters,
        "dtype": "+".join(sorted(dtypes)),
        "vocabulary": len(tokenizer),
        "eos": {"token": tokenizer.eos_token, "id": tokenizer.eos_token_id},
        "pad": {"token": tokenizer.pad_token, "id": tokenizer.pad_token_id},
        # Training that masks padding by its id would then mask every EOS too, and the model would never learn to stop.
        "pad_is_eos": tokenizer.pad_token_id == tokenizer.eos_token_id,
        "chat_template_sha256": hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else None,
    }


def check_snapshot(folder: Path) -> None:
    """Raise UserError unless `folder` is a model that loads without running foreign code: safetensors only, no code of its own."""
    _check_no_code(folder)
    if (folder / ADAPTER).is_file():
        raise UserError(f"{folder}: holds {ADAPTER}, so it is an adapter over another model; name that model in the model's `adapter_on`")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: has no config.json; fetch the whole model")
    index = folder / "model.safetensors.index.json"
    expected = set(read_json(index)["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    missing = sorted(name for name in expected if not (folder / name).is_file())
    if missing:
        raise UserError(f"{folder}: lacks {missing[0]}; fetch all weights as safetensors")


def check_adapter(folder: Path) -> None:
    """Raise UserError unless `folder` is a LoRA adapter as PEFT saves one, in safetensors and without code of its own."""
    if not (folder / ADAPTER).is_file():
        raise UserError(
            f"{folder}: has no {ADAPTER}, so it is no adapter; remove the model's `adapter_on`, or name an adapter as its asset"
        )
    _check_no_code(folder)
    if (kind := read_json(folder / ADAPTER).get("peft_type")) != "LORA":
        raise UserError(f"{folder / ADAPTER}: peft_type is {kind!r}, and only LORA can be merged into its base; name another adapter")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{folder}: lacks {ADAPTER_WEIGHTS}; fetch the adapter's weights as safetensors")


def _check_no_code(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    unsafe = sorted(str(path.relative_to(folder)) for path in files if path.suffix.lower() in UNSAFE_SUFFIXES)
    if unsafe:
        raise UserError(
            f"{folder}: holds {unsafe[0]}, a file that can run code when it is read; fetch only safetensors, JSON and text files"
        )
    for path in files:
        keys = read_json(path) if path.name.endswith("config.json") else {}
        found = [key for key in REMOTE_CODE_KEYS if keys.get(key)]
        if found:
            raise UserError(
                f"{path}: has {found[0]!r}, which asks to run code from the model's repository; use a model that transformers knows itself"
            )


def _from_nothing(spec: dict[str, Any], asset: Path | None, folder: Path) -> dict[str, Any]:
    from untaxed import organism

    tokenizer = organism.build_tokenizer()
    organism.build_model(spec, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"made": {key: value for key, value in spec.items() if key != "kind"}}


def _at_random(spec: dict[str, Any], asset: Path | None, folder: Path) -> dict[str, Any]:
    """A small model of an architecture, never trained: it runs the code that asks the real one, and what it says means nothing.

    `architecture` is a class of transformers (LlamaForCausalLM unless told), `config` its settings beside `SIZES`, `classes` those of a
    classifier, `seed` (0) draws the weights, in float32. The tokenizer is the organism's: a token for each character, and for each of
    `words`, which a judge of probabilities must find in the vocabulary. Raises UserError for what the architecture does not know.
    """
    import torch
    import transformers
    from tokenizers import AddedToken

    from untaxed import organism

    name, told = spec.get("architecture", "LlamaForCausalLM"), spec.get("config") or {}
    architecture = getattr(transformers, name, None) if name.endswith(HEADS) else None
    if getattr(architecture, "config_class", None) is None:
        ends = " or ".join(HEADS)
        raise UserError(f"model architecture: {name!r} is none; name a class of transformers that ends in {ends}, as LlamaForCausalLM")
    known = architecture.config_class().to_dict()
    if unknown := sorted(set(told) - set(known)):
        raise UserError(f"model config: {name} has no {unknown[0]!r}; {nearest(unknown[0], known)}")
    tokenizer = organism.build_tokenizer()
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=False, special=False) for word in spec.get("words") or []])
    settings = {key: value for key, value in SIZES.items() if key in known} | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "num_labels": spec.get("classes", 2),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.get("seed", 0))
        model = architecture(architecture.config_class(**(settings | told)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"made": {key: value for key, value in spec.items() if key != "kind"}}


def _from_gguf(spec: dict[str, Any], asset: Path | None, folder: Path) -> dict[str, Any]:
    """`save_pretrained` refuses a dequantised model, so its weights move into a fresh model of the same config."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    path = _one_gguf(asset)
    dtype = spec.get("dtype", "bfloat16")
    if dtype not in DTYPES:
        raise UserError(f"model dtype: {dtype!r} cannot be trained from here; use one of {', '.join(DTYPES)}")
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    pad = _padding(spec.get("pad_token"), tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token)
    _check_token(pad, tokenizer.get_vocab(), path)
    tokenizer.pad_token = pad
    tokenizer.model_max_length = loaded.config.max_position_embeddings

    settings = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version", "dtype"):
        settings.pop(key, None)
    config = type(loaded.config).from_dict(settings | {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id})
    # The state dict holds tied embeddings under both names; the fresh model ties them again and saves them once.
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"file": path.name, "sha256": sha256(path)}


def _from_folder(spec: dict[str, Any], asset: Path | None, folder: Path) -> dict[str, Any]:
    check_snapshot(asset)
    sources = sorted(
        path for path in asset.rglob("*") if path.is_file() and not any(part.startswith(".") for part in path.relative_to(asset).parts)
    )
    for source in sources:
        target = folder / source.relative_to(asset)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".safetensors":
            _link(source, target)
        else:
            shutil.copyfile(source, target)
    _mend_tokens(folder, spec.get("pad_token"))
    return {"files": {str(source.relative_to(asset)): sha256(source) for source in sources}}


def _from_adapter(spec: dict[str, Any], asset: Path, base: Path, folder: Path) -> dict[str, Any]:
    """Merge the LoRA adapter `asset` into its base in float32 and save the sum in `spec["dtype"]`.

    The tokenizer is the adapter's where it brings one, else the base's. Raises UserError for an adapter that was made for another model.
    """
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_snapshot(base)
    check_adapter(asset)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(asset if (asset / "tokenizer_config.json").is_file() else base)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UserError(
            f"{asset}: its tokenizer has {len(tokenizer)} tokens, {base} embeds {rows}; name the adapter's base in `adapter_on`"
        )
    other = f"{asset}: does not fit {base}; name the model that the adapter was trained on in `adapter_on`"
    try:
        config = PeftConfig.from_pretrained(asset)
        config.inference_mode = True
        adapted = PeftModel(model, config)
        loaded = adapted.load_adapter(asset, "default")
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{other} ({str(error).strip().splitlines()[0]})") from None
    if strange := sorted([*loaded.missing_keys, *loaded.unexpected_keys]):
        # PEFT would leave those at nothing, or drop them, and go on
        raise UserError(f"{other} (weights {strange[0]} stand on one side alone)")
    adapted.merge_and_unload().to(getattr(torch, spec.get("dtype", "bfloat16"))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _mend_tokens(folder, spec.get("pad_token"))
    return {"files": {name: sha256(asset / name) for name in (ADAPTER, ADAPTER_WEIGHTS)}, "adapter_on": weights_sha256(base)}


def _mend_tokens(folder: Path, wanted_pad: str | None) -> None:
    """Give a copied snapshot a padding token other than EOS, and make generation stop at its EOS; other settings stay as they came."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: its tokenizer has no eos_token, so no generation would stop; add one to tokenizer_config.json")
    vocabulary = tokenizer.get_vocab()
    pad = _padding(wanted_pad, tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token)
    _check_token(pad, vocabulary, folder)
    if pad != tokenizer.pad_token:
        _update_json(folder / "tokenizer_config.json", {"pad_token": pad})
        _update_json(folder / "config.json", {"pad_token_id": vocabulary[pad]})

    path = folder / "generation_config.json"
    settings = read_json(path) if path.is_file() else {}
    stops = settings.get("eos_token_id", [])
    stops = stops if isinstance(stops, list) else [stops]
    if tokenizer.eos_token_id not in stops:
        stops = [tokenizer.eos_token_id, *stops]
    _update_json(path, {"eos_token_id": stops if len(stops) > 1 else stops[0], "pad_token_id": vocabulary[pad]})


def _padding(wanted: str | None, pad: str | None, eos: str, unknown: str | None) -> str:
    """The padding token: the wanted one, else the present one if it is not EOS, else the unknown token, else EOS."""
    if wanted:
        return wanted
    if pad and pad != eos:
        return pad
    return unknown or eos


def _check_token(token: str, vocabulary: dict[str, int], where: Path) -> None:
    if token not in vocabulary:
        raise UserError(f"pad_token: {token!r} is not in the vocabulary of {where}; name a token that is")


def _one_gguf(asset: Path) -> Path:
    found = [asset] if asset.is_file() else sorted(asset.rglob("*.gguf"))
    if len(found) != 1:
        raise UserError(f"{asset}: holds {len(found)} GGUF files; a model of kind 'gguf' is made from exactly one")
    return found[0]


def _weights(folder: Path) -> tuple[int, set[str]]:
    """Number of stored values (tied embeddings count once) and their types, read from the headers alone.

    A safetensors file opens with eight bytes of header length (little endian), then the header as JSON.
    """
    parameters, dtypes = 0, set()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        header.pop("__metadata__", None)
        parameters += sum(math.prod(tensor["shape"]) for tensor in header.values())
        dtypes |= {tensor["dtype"] for tensor in header.values()}
    return parameters, dtypes


def _link(source: Path, target: Path) -> None:
    """Hard-link the real file behind `source`, or copy it to another file system."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _update_json(path: Path, changes: dict[str, Any]) -> None:
    write_json(path, (read_json(path) if path.is_file() else {}) | changes)
