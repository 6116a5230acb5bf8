"""What this machine offers a job: threads, an accelerator, a seed for every library."""

import os


def use_threads() -> None:
    """Give torch the threads that the job was given (OMP_NUM_THREADS): two jobs that both take all cores slow each other tenfold."""
    import torch

    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pick_engine(engine: str) -> str:
    """Resolve `auto`: vLLM where there is a CUDA GPU, transformers on a CPU."""
    if engine != "auto":
        return engine
    import torch

    return "vllm" if torch.cuda.is_available() else "transformers"


def installed_gpus() -> int:
    """How many NVIDIA GPUs this machine has."""
    return sum(name.startswith("nvidia") and name[len("nvidia") :].isdigit() for name in os.listdir("/dev"))


def visible_gpus() -> int:
    """How many of them a job may use, by CUDA_VISIBLE_DEVICES, without importing torch (the planner asks at every start)."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return installed_gpus()
    count = 0
    for name in map(str.strip, named.split(",")):
        if not name or name.startswith("-"):  # CUDA sees none after it
            break
        count += 1
    return min(count, installed_gpus())


def has_gpu() -> bool:
    """Whether a job may use an NVIDIA GPU."""
    return visible_gpus() > 0


def use_vllm(kv_cache_gib: int | None = None, threads: int | None = None) -> None:
    """Set what vLLM reads from the environment as it starts; what the user has exported stays.

    On a CPU: one process, `kv_cache_gib` GiB of cache (2), and threads that the system places.
    """
    import torch

    wanted = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
    if not torch.cuda.is_available():
        # A second process would load torch again: 74 s instead of 12 s. Two jobs that bind their threads would take the same cores.
        wanted |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        wanted |= {"VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gib or 2)} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def huge_pages() -> None:
    """Let torch ask for huge pages, before its first allocation: in small ones a step of SmolLM2 spends 8 % of its time on page faults."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def offline() -> None:
    """Switch the hub off: everything that a job needs was fetched before it (only `fetch` may use a network)."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
