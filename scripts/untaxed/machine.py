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


def gpu_names() -> list[str]:
    """The GPUs that a job may use, as CUDA_VISIBLE_DEVICES names them, without importing torch (the planner asks at every start)."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number in range(installed_gpus())]
    names = []
    for name in map(str.strip, named.split(",")):
        if not name or name.startswith("-"):  # CUDA sees none after it
            break
        names.append(name)
    return names[: installed_gpus()]


def visible_gpus() -> int:
    """How many GPUs a job may use."""
    return len(gpu_names())


def take_gpus(count: int, folder: str | None = None, wait_s: float = 1.0) -> list[str]:
    """Wait until `count` of the visible GPUs are free, and take them until this process and all that it starts have ended.

    A GPU is taken while somebody holds the lock on its file in `folder` (default: one for this user and batch job). Raises UserError when
    there are fewer.
    """
    import fcntl
    import tempfile
    import time

    from untaxed.records import UserError  # here, because it brings PyYAML along, and the launcher reads this module without

    names = gpu_names()
    if count > len(names):
        raise UserError(f"compute.gpus, compute.train_gpus: a job asks for {count} GPUs of {len(names)} on this machine; lower them")
    where = folder or os.path.join(tempfile.gettempdir(), f"untaxed-gpus-{os.getuid()}-{os.environ.get('SLURM_JOB_ID', 'here')}")
    os.makedirs(where, mode=0o700, exist_ok=True)
    while True:
        held: dict[str, int] = {}
        for name in names:
            lock = os.open(os.path.join(where, name), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            held[name] = lock
            if len(held) == count:
                for lock in held.values():
                    os.set_inheritable(lock, True)
                return list(held)
        for lock in held.values():  # all or none: two jobs that each hold a part would wait for each other
            os.close(lock)
        time.sleep(wait_s)


def has_gpu() -> bool:
    """Whether a job may use an NVIDIA GPU."""
    return visible_gpus() > 0


def on_this_machine(address: str) -> bool:
    """Whether a URL names this machine itself: localhost, or a loopback address. A name that only resolves to one does not count."""
    from ipaddress import ip_address
    from urllib.parse import urlsplit

    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


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
    """Let torch ask for huge pages, before its first allocation: in small ones a training step of SmolLM2 took 7 % longer."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def offline() -> None:
    """Switch the hub off: everything that a job needs was fetched before it (only `fetch` may use a network)."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
