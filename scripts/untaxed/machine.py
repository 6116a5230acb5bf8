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


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is visible, without importing torch (the planner asks at every start)."""
    return os.path.exists("/dev/nvidia0") and os.environ.get("CUDA_VISIBLE_DEVICES", "0") != ""


def offline() -> None:
    """Switch the hub off: everything that a job needs was fetched before it (only `fetch` may use a network)."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
