"""The loop that people write: prompts in batches through `model.generate`, texts out. perf/by_hand.sh refines and judges with it.

python perf/by_hand_generate.py --model FOLDER --requests requests.jsonl --output texts.jsonl --batch 8 --tokens 96
python perf/by_hand_generate.py --model FOLDER --samples FOLDER --rubric prompts/strongreject_rubric.yaml --output texts.jsonl
"""

import argparse
import json
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=Path, help='JSON Lines of {"messages": [...]}')
    parser.add_argument("--samples", type=Path, help="folder that lm_eval logged samples into")
    parser.add_argument("--rubric", type=Path, help="prompt file of the judge, with --samples")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    options = parser.parse_args()

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if options.requests:
        conversations = [json.loads(line)["messages"] for line in options.requests.open()]
    else:
        conversations = list(graded(options.samples, options.rubric))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype="auto").to(device)
    drawn = {"temperature": options.temperature, "top_p": options.top_p} if options.temperature else {}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w") as stream, torch.inference_mode():
        for start in range(0, len(conversations), options.batch):
            texts = [
                tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
                for conversation in conversations[start : start + options.batch]
            ]
            inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False).to(device)
            output = model.generate(**inputs, max_new_tokens=options.tokens, do_sample=bool(drawn), **drawn)
            for text in tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True):
                stream.write(json.dumps({"text": text}) + "\n")


def graded(folder: Path, rubric: Path):
    """One conversation with the judge per logged sample."""
    import yaml

    texts = yaml.safe_load(rubric.read_text())
    for path in sorted(folder.rglob("samples_*.jsonl")):
        for line in path.open():
            sample = json.loads(line)
            answer = sample["resps"][0][0].rpartition("</think>")[2]
            filled = texts["user"].replace("{forbidden_prompt}", sample["doc"]["prompt"]).replace("{response}", answer)
            system = [{"role": "system", "content": texts["system"]}] if texts.get("system") else []
            yield [*system, {"role": "user", "content": filled}]


if __name__ == "__main__":
    main()
