"""Facts about prepared model folders."""

import json
import os
import shutil
from pathlib import Path

import pytest
from untaxed.models import check_snapshot, model_name, prepare
from untaxed.records import UserError, read_json, sha256, write_json

GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A prepared model organism."""
    path = tmp_path_factory.mktemp("models") / "organism"
    prepare({"kind": "organism", "seed": 3}, None, path)
    return path


@pytest.fixture
def snapshot(folder, tmp_path) -> Path:
    """A copy of the organism that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "snapshot"))


def test_a_prepared_organism_loads_and_generates(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+1"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert tokenizer.decode(inputs["input_ids"][0]) == "<user>1+1<assistant>"
    output = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert output.shape[1] > inputs["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<eos>")


def test_the_record_counts_the_stored_parameters(folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert read_json(folder / "manifest.json")["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_nothing_that_unpickles_is_written(folder):
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".jinja", ".safetensors"}


def test_a_copied_snapshot_is_the_same_model_and_shares_its_weights(folder, tmp_path):
    record = prepare({"kind": "folder"}, folder, tmp_path / "copy")
    assert sha256(tmp_path / "copy/model.safetensors") == sha256(folder / "model.safetensors")
    assert record["source"]["files"]["config.json"] == sha256(folder / "config.json")
    assert os.path.samefile(tmp_path / "copy/model.safetensors", folder / "model.safetensors")


def test_padding_that_equals_eos_is_replaced_and_the_snapshot_itself_is_untouched(snapshot, tmp_path):
    settings = read_json(snapshot / "tokenizer_config.json") | {"pad_token": "<eos>"}
    write_json(snapshot / "tokenizer_config.json", settings)
    record = prepare({"kind": "folder"}, snapshot, tmp_path / "copy")
    assert (record["pad"]["token"], record["pad_is_eos"]) == ("<unk>", False)
    assert read_json(tmp_path / "copy/config.json")["pad_token_id"] == record["pad"]["id"]
    assert read_json(snapshot / "tokenizer_config.json") == settings


def test_the_wanted_padding_token_must_exist(snapshot, tmp_path):
    assert prepare({"kind": "folder", "pad_token": "<unk>"}, snapshot, tmp_path / "copy")["pad"]["token"] == "<unk>"
    with pytest.raises(UserError, match="nowhere"):
        prepare({"kind": "folder", "pad_token": "<nowhere>"}, snapshot, tmp_path / "other")


def test_generation_stops_at_the_tokenizers_eos_even_if_the_snapshot_forgot(snapshot, tmp_path):
    eos = read_json(snapshot / "manifest.json")["eos"]["id"]
    write_json(snapshot / "generation_config.json", {"eos_token_id": 77})
    prepare({"kind": "folder"}, snapshot, tmp_path / "copy")
    assert read_json(tmp_path / "copy/generation_config.json")["eos_token_id"] == [eos, 77]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "old/weights.pt", "state.pkl", "modeling_custom.py"])
def test_a_snapshot_with_a_file_that_runs_code_is_refused(snapshot, name):
    (snapshot / name).parent.mkdir(exist_ok=True)
    (snapshot / name).write_bytes(b"x")
    with pytest.raises(UserError, match=Path(name).name):
        check_snapshot(snapshot)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_snapshot_that_asks_for_remote_code_is_refused(snapshot, name):
    write_json(snapshot / name, read_json(snapshot / name) | {"auto_map": {"AutoModelForCausalLM": "modeling.Custom"}})
    with pytest.raises(UserError, match="auto_map"):
        check_snapshot(snapshot)


def test_a_missing_shard_is_named(snapshot):
    write_json(snapshot / "model.safetensors.index.json", {"weight_map": {"a": "model-00001-of-00002.safetensors"}})
    with pytest.raises(UserError, match="model-00001-of-00002"):
        check_snapshot(snapshot)


def test_an_unknown_kind_and_a_missing_asset_are_errors(tmp_path):
    with pytest.raises(UserError, match="gguf, folder, organism, random"):
        prepare({"kind": "onnx"}, None, tmp_path / "model")
    with pytest.raises(UserError, match="fetch it first"):
        prepare({"kind": "folder"}, tmp_path / "nowhere", tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory) -> Path:
    """A LoRA adapter over the organism, its weights drawn at random: as PEFT makes one, it would change nothing."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"),
    )
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("adapters") / "adapter"
    adapted.save_pretrained(path)
    return path


@pytest.fixture
def own(adapter, tmp_path) -> Path:
    """A copy of the adapter that a test may damage."""
    return Path(shutil.copytree(adapter, tmp_path / "own"))


def test_a_merged_adapter_has_the_logits_of_the_adapter_over_its_base(folder, adapter, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    record = prepare({"kind": "folder", "dtype": "float32"}, adapter, tmp_path / "merged", folder)
    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    inputs = AutoTokenizer.from_pretrained(tmp_path / "merged")("is it 1+1?", return_tensors="pt")
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(**inputs).logits
        unchanged = bare(**inputs).logits
        wanted = PeftModel.from_pretrained(bare, adapter)(**inputs).logits
    torch.testing.assert_close(merged, wanted, rtol=1e-4, atol=1e-5)
    assert (merged - unchanged).abs().max() > 0.01
    base = read_json(folder / "manifest.json")
    assert {key: record[key] for key in ("parameters", "dtype", "eos", "pad")} == {
        key: base[key] for key in ("parameters", "dtype", "eos", "pad")
    }
    assert record["source"]["adapter_on"] == base["weights_sha256"]
    assert not [path.name for path in (tmp_path / "merged").iterdir() if path.name.startswith("adapter")]
    check_snapshot(tmp_path / "merged")


def test_a_merged_adapter_is_saved_in_the_models_dtype(folder, adapter, tmp_path):
    assert prepare({"kind": "folder", "dtype": "bfloat16"}, adapter, tmp_path / "merged", folder)["dtype"] == "BF16"


def test_an_adapter_brings_its_own_tokenizer_where_it_has_one(folder, own, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(own)
    prepare({"kind": "folder"}, own, tmp_path / "merged", folder)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == tokenizer.chat_template
    tokenizer.add_tokens([f"<more {number}>" for number in range(200)])
    tokenizer.save_pretrained(own)
    with pytest.raises(UserError, match=r"its tokenizer has \d+ tokens, .* embeds \d+; name the adapter's base in `adapter_on`"):
        prepare({"kind": "folder"}, own, tmp_path / "other", folder)


def test_an_adapter_without_its_base_and_a_base_without_an_adapter_are_refused(folder, adapter, tmp_path):
    with pytest.raises(UserError, match=r"adapter: holds adapter_config\.json, .* name that model in the model's `adapter_on`"):
        prepare({"kind": "folder"}, adapter, tmp_path / "model")
    with pytest.raises(UserError, match=r"organism: has no adapter_config\.json, .* remove the model's `adapter_on`"):
        prepare({"kind": "folder"}, folder, tmp_path / "model", folder)
    with pytest.raises(UserError, match="is for an adapter, which a model of kind 'folder' may be, and not one of kind 'organism'"):
        prepare({"kind": "organism"}, None, tmp_path / "model", folder)
    assert not (tmp_path / "model").exists()


def test_adapter_weights_that_are_a_pickle_or_lacking_are_refused(folder, own, tmp_path):
    (own / "adapter_model.safetensors").rename(own / "adapter_model.bin")
    with pytest.raises(UserError, match=r"holds adapter_model\.bin, a file that can run code when it is read; fetch only safetensors"):
        prepare({"kind": "folder"}, own, tmp_path / "model", folder)
    (own / "adapter_model.bin").unlink()
    with pytest.raises(UserError, match=r"lacks adapter_model\.safetensors; fetch the adapter's weights as safetensors"):
        prepare({"kind": "folder"}, own, tmp_path / "model", folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "PROMPT_TUNING"}, r"adapter_config\.json: peft_type is 'PROMPT_TUNING', and only LORA can be merged"),
        ({"auto_map": {"x": "y"}}, "has 'auto_map', which asks to run code"),
        ({"target_modules": ["no_such"]}, "does not fit .*; name the model that the adapter was trained on in `adapter_on`"),
        ({"target_modules": ["q_proj", "v_proj"]}, r"does not fit .* \(weights .*down_proj.* stand on one side alone"),
        (
            {"target_modules": ["q_proj", "v_proj", "down_proj", "up_proj"]},
            r"does not fit .* \(weights .*up_proj.* stand on one side alone",
        ),
        ({"r": 8}, "does not fit"),
    ],
)
def test_an_adapter_that_is_none_of_lora_or_of_another_model_is_refused_in_one_line(changes, said, folder, own, tmp_path):
    write_json(own / "adapter_config.json", read_json(own / "adapter_config.json") | changes)
    with pytest.raises(UserError, match=said) as failure:
        prepare({"kind": "folder"}, own, tmp_path / "model", folder)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("options", "auto", "outputs"),
    [
        ({"architecture": "LlamaForSequenceClassification", "classes": 14}, "AutoModelForSequenceClassification", 14),
        ({"words": ["safe", "unsafe"]}, "AutoModelForCausalLM", 105),  # 96 characters, 5 tokens of turns, 2 thinking markers, 2 words
        ({"architecture": "GemmaForCausalLM", "config": {"head_dim": 16}}, "AutoModelForCausalLM", 103),
    ],
)
def test_a_random_model_has_the_architecture_the_classes_and_the_words_that_are_asked(options, auto, outputs, tmp_path):
    import transformers

    for name, seed in (("a", 0), ("same", 0), ("other", 1)):
        prepare({"kind": "random", "dtype": "float32", "seed": seed, **options}, None, tmp_path / name)
    weights = [read_json(tmp_path / name / "manifest.json")["weights_sha256"] for name in ("a", "same", "other")]
    assert weights[0] == weights[1] != weights[2]
    check_snapshot(tmp_path / "a")
    model, tokenizer = (
        getattr(transformers, auto).from_pretrained(tmp_path / "a"),
        transformers.AutoTokenizer.from_pretrained(tmp_path / "a"),
    )
    assert type(model).__name__ == options.get("architecture", "LlamaForCausalLM")
    logits = model(**tokenizer("is it unsafe?", return_tensors="pt")).logits
    assert logits.shape[-1] == outputs
    assert ("unsafe" in tokenizer.tokenize("is it unsafe?")) == ("words" in options)
    assert "safe" not in tokenizer.tokenize("a safety tax")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"architecture": "LlamaModel"}, "'LlamaModel' is none; name a class of transformers"),
        ({"architecture": "NoSuchForCausalLM"}, "'NoSuchForCausalLM' is none"),
        ({"architecture": "AutoModelForCausalLM"}, "'AutoModelForCausalLM' is none"),
        ({"config": {"hiden_size": 32}}, "LlamaForCausalLM has no 'hiden_size'; did you mean 'hidden_size'"),
    ],
)
def test_a_random_model_of_what_is_no_architecture_is_refused(options, said, tmp_path):
    with pytest.raises(UserError, match=said):
        prepare({"kind": "random", **options}, None, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def command(root):
    import importlib.util

    module = importlib.util.spec_from_file_location("prepare_model", root / "scripts/prepare_model.py")
    found = importlib.util.module_from_spec(module)
    module.loader.exec_module(found)
    return found


def test_the_command_writes_the_model_folder(tmp_path, root):
    command(root).main(["--spec", json.dumps({"kind": "organism", "hidden_size": 32, "layers": 1}), "--output", str(tmp_path / "tiny")])
    assert read_json(tmp_path / "tiny/manifest.json")["kind"] == "organism"


def test_the_command_merges_an_adapter_into_the_base_that_it_is_told(folder, adapter, tmp_path, root):
    told = ["--spec", '{"kind": "folder", "dtype": "float32"}', "--asset", str(adapter), "--base", str(folder)]
    command(root).main([*told, "--output", str(tmp_path / "merged")])
    assert read_json(tmp_path / "merged/manifest.json")["source"]["adapter_on"] == read_json(folder / "manifest.json")["weights_sha256"]


def test_a_converted_gguf_model_writes_the_same_greedy_text(packaged, tmp_path):
    """SmolLM2-135M-Instruct (Q4_1), the model of the laptop study, before and after conversion."""
    (gguf,) = packaged("smollm2-135m-instruct").glob("*.gguf")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    record = prepare({"kind": "gguf", "dtype": "float32"}, gguf, tmp_path / "model")
    assert record["source"]["sha256"] == GGUF_SHA256
    assert record["pad_is_eos"] is False
    converted = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    original = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    assert converted.lm_head.weight is converted.model.embed_tokens.weight
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    texts = [tokenizer.decode(model.generate(**inputs, max_new_tokens=20, do_sample=False)[0]) for model in (original, converted)]
    assert texts[0] == texts[1]
    assert "Paris" in texts[1]


def test_a_model_is_named_by_its_folder_wherever_it_was_made():
    assert model_name("results/s/models/smollm2") == "smollm2"
    assert model_name(Path("results/s/runs/reasoning--teacher-b/checkpoint")) == "teacher-b"
