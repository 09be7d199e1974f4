"""Device and dtype of a run: what is said without torch is what torch says."""

import subprocess
import sys

import pytest
import torch

from infllm.engine.config import device
from infllm.engine.errors import ConfigError


def test_without_torch_the_answers_are_those_of_torch():
    code = (
        "import sys; from infllm.engine.config.device import *; "
        "found = has_cuda(), cpu_has_bfloat16(), device_name('auto'); print(*found)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" in sys.modules
    here = device.has_cuda(), device.cpu_has_bfloat16(), device.device_name("auto")
    assert done.stdout.split() == [str(answer) for answer in here]


def test_what_was_chosen_stays():
    assert device.device_name("cpu") == "cpu"
    assert device.dtype_name("float16", "cpu") == "float16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="device cuda:1: this torch sees no CUDA device"):
        device.device_name("cuda:1")


def test_a_gpu_driver_leaves_the_decision_to_torch(monkeypatch):
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: object())
    assert device._may_have_gpu_driver()
