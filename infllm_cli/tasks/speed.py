"""How fast a model reads and answers with a memory: measured on the machine that runs it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infllm.cli.progress import peak_memory_bytes
from infllm.cli.work import decode_bytes, reading_work

if TYPE_CHECKING:
    import torch

    from infllm.engine import Engine
    from infllm.engine.session import Session

WARM_STEPS = 4  # decode steps at most that are not timed: kernels load, caches fill
# What a kernel's or an operator's name tells of its purpose; the first that fits counts.
KINDS = {
    "attention": ("partial_attention", "merge_state", "part_mass", "flash", "fmha", "softmax"),
    "scoring": ("unit_scores", "top_units", "unit_lse"),
    "copies": ("memcpy", "memset"),
    "linear": ("gemm", "nvjet", "cutlass", "cublas", "gemv", "splitk", "::addmm", "::mm"),
}


@dataclass(frozen=True)
class Speed:
    """One reading as it stood when `tokens` tokens had been read; seconds are of wall time."""

    tokens: int
    wanted: int  # more than `tokens` where time ran out on the way
    seconds: float
    tokens_per_second: float
    decode_tokens_per_second: float | None
    peak_bytes: int  # of the device, or of the process on a CPU; since this reading began
    peak_bytes_above_model: int
    device_bytes: int  # of the session's memory
    host_bytes: int
    cache_hits: int
    cache_misses: int
    floors: Floors | None = None
    decode_replayed: bool = False  # steps were recorded once and replayed (CUDA graphs)
    replays_a_step: float | None = None  # more than 1 where units lacked

    @property
    def complete(self) -> bool:
        return self.tokens >= self.wanted


@dataclass(frozen=True)
class Ceilings:
    """What the device reached in a moment's trial."""

    matmul: float  # floating-point operations a second, a large product of random numbers
    copy: float  # bytes a second, read and written, within the device's memory


@dataclass(frozen=True)
class Floors:
    """Least seconds, from what must be done (`infllm.cli.work`) and the measured ceilings."""

    linear: float  # of the reading so far
    attention: float
    mass: float
    scoring: float
    decode: float  # of one step

    @property
    def prefill(self) -> float:
        return self.linear + self.attention + self.mass + self.scoring


def measure(
    engine: Engine,
    overrides: Mapping[str, Any],
    lengths: Sequence[int],
    *,
    decode_steps: int = 16,
    deadline: float = float("inf"),
    ceilings: Ceilings | None = None,
    advance: Callable[[int], None] = lambda tokens: None,
    at_length: Callable[[Session], None] = lambda session: None,
) -> Iterator[Speed]:
    """Read random tokens once, and tell the speed when each of `lengths` is reached.

    Decode steps run on a fork, and neither they nor `at_length` (given a fork, too) count as
    reading. At `deadline` (of `time.monotonic`) reading stops, with what was reached until then.
    Lengths are taken in whole chunks, at least one.

    Raises:
        EngineError: as for `Session.read`.
    """
    chunk = engine.config.chunk_size
    marks = sorted({max(chunk, n // chunk * chunk): n for n in lengths}.items())
    base = warm_up(engine, overrides, decode_steps)
    restart_peak(engine.device)
    session = engine.session(overrides=overrides)
    done, seconds = 0, 0.0
    for mark, _ in marks:
        while done < mark and time.monotonic() < deadline:
            ids = random_ids(engine, chunk, seed=done)
            began = time.perf_counter()
            session.read(ids)
            synchronize(engine.device)
            seconds += time.perf_counter() - began
            done += chunk
            advance(chunk)
        if done == 0:
            return
        peak = peak_bytes(engine.device)
        stats = session.stats
        answering = session.fork()
        rate = decode_rate(answering, decode_steps, engine.device) if decode_steps else None
        at_length(session.fork())
        floors = None if ceilings is None else floors_of(engine, overrides, done, ceilings)
        yield Speed(
            done, mark, round(seconds, 4), round(done / seconds, 1),
            None if rate is None else round(rate, 2),
            peak, max(0, peak - base), stats.device_bytes, stats.host_bytes,
            stats.cache_hits, stats.cache_misses, floors, answering.replays_steps,
            answering.replays_a_step,
        )  # fmt: skip
        if done < mark:
            return


def random_ids(engine: Engine, n: int, seed: int = 0) -> list[int]:
    """`n` token ids: to a model's speed it makes no difference what it reads, as long as it is not
    the same again and again, whose units would all be alike."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, engine.vocab_size, (n,), generator=generator).tolist()


def warm_up(engine: Engine, overrides: Mapping[str, Any], decode_steps: int) -> int:
    """Run everything once, on a GPU also what compiles and tunes kernels.

    Returns:
        Bytes in use afterwards, see `peak_bytes`.
    """
    on_gpu = engine.device.type == "cuda"
    session = engine.session(overrides=overrides)
    session.read(random_ids(engine, 2 * engine.config.chunk_size if on_gpu else 64))
    session.end()
    if decode_steps:
        decode_rate(session, 1, engine.device)
    del session
    return bytes_in_use(engine.device)


def decode_rate(session: Session, steps: int, device: torch.device) -> float:
    """Tokens a second of greedy decoding, each step a forward pass and the choice of a token."""
    session.end()
    token = 3
    began = 0.0
    warm = min(WARM_STEPS, steps)
    for step in range(warm + steps):
        if step == warm:
            synchronize(device)
            began = time.perf_counter()
        token = int(session.score([token], step=True)[-1].argmax())
    synchronize(device)
    return steps / (time.perf_counter() - began)


def floors_of(
    engine: Engine, overrides: Mapping[str, Any], tokens: int, ceilings: Ceilings
) -> Floors:
    """Least seconds of reading `tokens` tokens, and of a decode step after them."""
    spec = engine.model.config.get_text_config().to_dict()
    shapes = engine.attachment.layers
    settings = engine.config.with_overrides(overrides).model
    work = reading_work(spec, shapes, settings, tokens)
    moved = decode_bytes(spec, shapes, settings, tokens, engine.dtype.itemsize)
    speed = ceilings.matmul
    return Floors(
        work.linear / speed, work.attention / speed, work.mass / speed, work.scoring / speed,
        moved / ceilings.copy,
    )  # fmt: skip


# ---- time and memory of a device ----------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], object], device: torch.device, budget: float = 0.3) -> float:
    """Median seconds of one call, after a warm-up; `budget` bounds the time spent, about."""
    run()
    synchronize(device)
    times: list[float] = []
    while not times or (sum(times) < budget and len(times) < 50):
        times.append(_seconds_once(run, device))
    return sorted(times)[len(times) // 2]


def _seconds_once(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    import torch

    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1000


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """A large matrix product and a large copy, of random numbers: zeros multiply faster."""
    return Ceilings(_matmul_speed(device, dtype), _copy_speed(device))


def _matmul_speed(device: torch.device, dtype: torch.dtype) -> float:
    import torch

    side = 8192 if device.type == "cuda" else 1024
    a, b, out = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(3))
    return 2.0 * side**3 / seconds_of(lambda: torch.mm(a, b, out=out), device)


def _copy_speed(device: torch.device) -> float:
    import torch

    n_bytes = 2**31 if device.type == "cuda" else 2**26
    source = torch.randint(0, 255, (n_bytes,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2.0 * n_bytes / seconds_of(lambda: target.copy_(source), device)


def bytes_in_use(device: torch.device) -> int:
    """Bytes of a GPU in tensors, or of this process in memory."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.memory_allocated(device))
    return _status_bytes("VmRSS") or peak_memory_bytes()


def restart_peak(device: torch.device) -> None:
    """Let `peak_bytes` count from now on, where the system allows it."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        try:
            with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                file.write("5")  # resets the high-water mark of resident memory (proc(5))
        except OSError:
            return  # not permitted here: the peak is that of the whole process


def peak_bytes(device: torch.device) -> int:
    """Most bytes in use since `restart_peak`: a GPU's in tensors, or this process's in memory."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return _status_bytes("VmHWM") or peak_memory_bytes()


def _status_bytes(field: str) -> int | None:
    """A size out of /proc/self/status; None where there is no such file."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            line = next(line for line in file if line.startswith(f"{field}:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


# ---- where the time goes ------------------------------------------------------------------------


def time_split(run: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Seconds of `run` by kind of work (`KINDS`, `other`), of its wall, and of an idle GPU.

    On a GPU kernels are counted, elsewhere operators. The profiler itself slows launches down.
    """
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    synchronize(device)
    with profile(activities=[activity], acc_events=True) as watched:
        began = time.perf_counter()
        run()
        synchronize(device)
        wall = time.perf_counter() - began
    seconds = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in watched.events() or ():
        if on_gpu and event.device_type == DeviceType.CUDA:
            seconds[kind_of(event.name)] += event.time_range.elapsed_us() / 1e6
        elif not on_gpu:
            seconds[kind_of(event.name)] += event.self_cpu_time_total / 1e6
    seconds["wall"] = wall
    if on_gpu:  # copies run beside the rest
        busy = sum(seconds[kind] for kind in (*KINDS, "other") if kind != "copies")
        seconds["idle"] = max(0.0, wall - busy)
    return {kind: round(value, 6) for kind, value in seconds.items()}


def kind_of(name: str) -> str:
    """What a kernel or operator of this name does: one of `KINDS`, or `other`."""
    name = name.lower()
    return next(
        (kind for kind, words in KINDS.items() if any(word in name for word in words)), "other"
    )
