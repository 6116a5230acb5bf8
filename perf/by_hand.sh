#!/usr/bin/env bash
# A study by hand: the usual commands, one after the other, each timed.
#   perf/by_hand.sh PLAN TIMES LOGS
# PLAN (written by perf/bench_laptop.py) has one job a line, fields parted by "|"; TIMES gets "part|group|name|seconds" a job.
#   train     `trl sft` with its defaults: padded batches, gradient checkpointing, one process
#   evaluate  `lm_eval run --model hf --batch_size 8`, once per benchmark and checkpoint
#   refine    a generate loop of transformers over rewrite requests
#   judge     the same loop over the samples that lm_eval logged
set -euo pipefail
if [ "$#" -ne 3 ] || [ "$1" = "--help" ]; then
    sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    [ "${1:-}" = "--help" ] && exit 0 || exit 2
fi
plan=$1 times=$2 logs=$3
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
: > "$times"
mkdir -p "$logs"

train() { # model rows output learning-rate length-of-training(two words) batch schedule warmup decay seed max-length bf16 chat-template
    local length device=() template=()
    [ -z "${13:-}" ] || template=(--chat_template_path "${13}")
    read -r -a length <<< "$5"
    command -v nvidia-smi > /dev/null || device=(--use_cpu) # without a GPU its default bf16 is refused otherwise
    trl sft --model_name_or_path "$1" --dataset_name "$2" --output_dir "$3" --learning_rate "$4" "${length[@]}" \
        --per_device_train_batch_size "$6" --lr_scheduler_type "$7" --warmup_steps "$8" --weight_decay "$9" --seed "${10}" \
        --max_length "${11}" --bf16 "${12}" --save_strategy no --report_to none "${device[@]}" "${template[@]}"
}

evaluate() { # checkpoint tasks task output device dtype context
    lm_eval run --model hf --model_args "pretrained=$1,dtype=$6,max_length=$7" --include_path "$2" --tasks "$3" --output_path "$4" \
        --batch_size 8 --apply_chat_template --log_samples --device "$5"
}

refine() { # model requests output batch tokens temperature top-p
    python "$here/by_hand_generate.py" --model "$1" --requests "$2" --output "$3" --batch "$4" --tokens "$5" --temperature "$6" --top-p "$7"
}

judge() { # model samples rubric output batch tokens
    python "$here/by_hand_generate.py" --model "$1" --samples "$2" --rubric "$3" --output "$4" --batch "$5" --tokens "$6"
}

while IFS="|" read -r -a job; do
    part=${job[0]} group=${job[1]} name=${job[2]}
    started=$EPOCHREALTIME
    if ! "$part" "${job[@]:3}" < /dev/null > "$logs/$part-$name.log" 2>&1; then
        echo "error: $part $name failed; its log ends:" >&2
        tail -15 "$logs/$part-$name.log" >&2
        exit 1
    fi
    seconds=$(awk -v a="$started" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }')
    echo "$part|$group|$name|$seconds" >> "$times"
    echo "$part $name: $seconds s"
done < "$plan"
