"""What a machine offers a job: threads, an engine, a GPU that the planner may ask for, and no network."""

import os
import subprocess
import sys

import pytest
from untaxed import machine

HUB = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


@pytest.mark.parametrize(("asked", "given"), [("3", 3), (None, 2)])
def test_torch_gets_the_threads_of_the_job_and_keeps_its_own_without_a_number(asked, given, root):
    # in a process of its own: vLLM, once it has run in this one, turns torch.set_num_threads into a warning
    code = "import torch; from untaxed.machine import use_threads; torch.set_num_threads(2); use_threads(); print(torch.get_num_threads())"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | {"PYTHONPATH": str(root / "scripts")}
    environment |= {"OMP_NUM_THREADS": asked} if asked else {}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert int(said) == given


@pytest.mark.parametrize(("cuda", "engine"), [(True, "vllm"), (False, "transformers")])
def test_auto_is_vllm_on_a_gpu_and_transformers_on_a_cpu(cuda, engine, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert machine.pick_engine("auto") == engine


@pytest.mark.parametrize("engine", ["vllm", "transformers", "openai", "magic", None])
def test_an_engine_that_is_named_stays_whatever_the_machine_has(engine):
    assert machine.pick_engine(engine) == engine


@pytest.mark.parametrize(
    ("devices", "visible", "count"),
    [
        (2, None, 2),
        (2, "0", 1),
        (2, "1, 0", 2),
        (2, "0,1,2", 2),  # there is no third
        (2, "", 0),
        (2, "-1", 0),
        (2, "0,-1,1", 1),  # CUDA stops at the first that is none
        (1, "GPU-1f2e,GPU-3d4c", 1),
        (0, None, 0),
        (0, "0", 0),
    ],
)
def test_the_gpus_are_those_of_the_machine_that_are_not_hidden(devices, visible, count, monkeypatch):
    names = [*(f"nvidia{number}" for number in range(devices)), "nvidiactl", "nvidia-uvm", "null"]
    monkeypatch.setattr(machine.os, "listdir", lambda path: names if path == "/dev" else [])
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert (machine.installed_gpus(), machine.visible_gpus(), machine.has_gpu()) == (devices, count, count > 0)


@pytest.mark.parametrize(
    ("cuda", "arguments", "exported", "expected"),
    [
        (True, (4, 2), {}, {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}),
        (False, (), {}, {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}),
        (False, (4, 3), {}, {"VLLM_CPU_KVCACHE_SPACE": "4", "OMP_NUM_THREADS": "3"}),
        (False, (4, 3), {"VLLM_CPU_KVCACHE_SPACE": "9", "OMP_NUM_THREADS": "1"}, {"VLLM_CPU_KVCACHE_SPACE": "9", "OMP_NUM_THREADS": "1"}),
    ],
)
def test_vllm_gets_one_process_and_its_cache_on_a_cpu_and_what_is_exported_stays(cuda, arguments, exported, expected, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(os, "environ", dict(exported))
    machine.use_vllm(*arguments)
    assert expected.items() <= os.environ.items()
    assert ("VLLM_CPU_KVCACHE_SPACE" in os.environ) is not cuda


def test_offline_switches_every_hub_off(monkeypatch):
    for name in HUB:
        monkeypatch.setenv(name, "0")
    machine.offline()
    assert {os.environ[name] for name in HUB} == {"1"}


def test_the_planner_does_not_pay_for_torch(root):
    code = "import sys; from untaxed.machine import has_gpu, pick_engine; has_gpu(); pick_engine('vllm'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root / "scripts", check=False).returncode == 0


ON_THREE = """
import runpy, sys
from untaxed import machine
machine.installed_gpus = lambda: 3
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def on_gpus(root, folder, *arguments: str, **more: str) -> subprocess.Popen:
    """`scripts/on_gpus.py` on a machine that seems to have three GPUs, with its locks in a folder of the test."""
    environment = {key: value for key, value in os.environ.items() if key not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")}
    environment |= {"PYTHONPATH": str(root / "scripts"), "TMPDIR": str(folder), **more}
    command = [sys.executable, "-c", ON_THREE, str(root / "scripts/on_gpus.py"), *arguments]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


SAY = ("sh", "-c", "echo $CUDA_VISIBLE_DEVICES; read line")  # holds its GPUs until it is told to go


def test_jobs_side_by_side_get_gpus_of_their_own_and_wait_for_free_ones(root, tmp_path):
    first = on_gpus(root, tmp_path, "2", *SAY)
    assert first.stdout.readline() == "0,1\n"
    second = on_gpus(root, tmp_path, "1", *SAY)
    assert second.stdout.readline() == "2\n"
    third = on_gpus(root, tmp_path, "1", *SAY)
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(1.5)
    second.communicate("go\n", timeout=20)
    assert third.stdout.readline() == "2\n"
    for job in (first, third):
        job.communicate("go\n", timeout=20)
        assert job.returncode == 0


def test_a_job_takes_from_the_visible_gpus_alone_and_is_refused_more(root, tmp_path):
    job = on_gpus(root, tmp_path, "1", *SAY, CUDA_VISIBLE_DEVICES="2,1")
    assert job.communicate("go\n", timeout=20)[0] == "2\n"
    job = on_gpus(root, tmp_path, "2", *SAY, CUDA_VISIBLE_DEVICES="1")
    _, said = job.communicate(timeout=20)
    assert (job.returncode, said) == (
        1,
        "error: compute.gpus, compute.train_gpus: a job asks for 2 GPUs of 1 on this machine; lower them\n",
    )


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1:9/v1", True),
        ("http://127.8.8.8/v1", True),
        ("http://[::1]:8000/v1", True),
        ("https://api.openai.com/v1", False),
        ("http://192.168.0.7:8000/v1", False),
        ("http://localhost.example.org/v1", False),
        ("http://[::1/v1", False),
        ("no address", False),
    ],
)
def test_only_localhost_and_loopback_addresses_are_this_machine(address, here):
    assert machine.on_this_machine(address) is here
