"""Several processes, one a host or one a device, that train one run together by JAX's own runtime.

All of them execute the same program and take the same steps. What depends on a clock, a signal or the memory that is
free is decided by process 0 and told to the others (`agree`), through the store of keys and values that JAX's runtime
keeps in process 0: that needs no device, so it cannot come between the steps. With one process nothing is told to
anybody, and all functions here return what they were given.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

from cnn_jax.errors import InputError
from cnn_jax.runs import greeting

T = TypeVar("T")
HEARTBEAT = 60  # seconds without a sign of a process, after which JAX's runtime ends all others
LEAVE = 50  # seconds that a process which ends otherwise than by `leave` waits for the others
_LONG = 2**31 - 1  # milliseconds that others wait for what process 0 decides; should it end, JAX's runtime ends them
_KEPT = 1000  # decisions that others may still have to read
_PEEK = 0.2  # seconds between two looks at whether another process has received a signal
_PREFIX, _BEFORE, _STOP = "cnn_jax/", "cnn_jax_before/", "cnn_jax_stop/"

_turns, _befores = itertools.count(), itertools.count()
_looked = 0.0
_found: int | None = None  # the signal that another process has received
_together = False  # from `join` to `leave`
_OPTIONS: Any = jax.config  # some versions of JAX declare its options to type checkers, some do not


def join(coordinator: str | None, processes: int | None, process: int | None, alone: bool = False) -> None:
    """Makes this process one of several, if it is told so or a cluster says so; to be called before JAX starts.

    Args:
        coordinator: host of process 0 and a free port there.
        processes: number of processes; 1 asks no cluster.
        process: which this one is.
        alone: whether this is a run of several seeds or a sweep, which one process trains.

    Raises:
        InputError: some are given and others not, there are several for a run that is to be alone, or they did not come
            together in `greeting.WAIT` seconds.
        LostError: one of them has come and ended.
    """
    global _together
    given = [value is not None for value in (coordinator, processes, process)]
    if processes == 1 or (not any(given) and not _cluster()):
        return
    devices = None
    if not any(given):
        coordinator, processes, process, devices = _from_cluster()
        if processes == 1:
            return
    if coordinator is None or processes is None or process is None:
        raise InputError(
            f"coordinator, processes, process: expected all three or none, got {coordinator}, {processes}, {process}"
        )
    if alone:
        raise InputError(
            f"processes: expected 1 with several seeds, or in a sweep, got {processes}; train one seed at a time"
        )
    if _together or jax.distributed.is_initialized():
        raise InputError("processes: expected one run in a process, got another; start all processes again for it")
    greeting.meet(coordinator, processes, process, greeting.WAIT)
    # Its handler would take SIGTERM from ours.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator, processes, process, devices, "deactivate", initialization_timeout=int(greeting.WAIT),
        heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=LEAVE,
    )  # fmt: skip
    _together = True


def _cluster() -> bool:
    """Whether the environment is that of a cluster that JAX knows, with several processes. Cheap, as all runs ask."""
    environment = os.environ
    if "SLURM_STEP_NODELIST" in environment and int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return True
    if "OMPI_MCA_orte_hnp_uri" in environment and int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return True
    hosts = environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES", ""))
    if "," in hosts or int(environment.get("MEGASCALE_NUM_SLICES", 1)) > 1:  # GKE
        return True
    if "JOB_COMPLETION_INDEX" in environment and importlib.util.find_spec("kubernetes"):
        return True
    from jax._src import cloud_tpu_init  # sets TPU_SKIP_MDS_QUERY where there is no chip

    return cloud_tpu_init.running_in_cloud_tpu_vm and "TPU_SKIP_MDS_QUERY" not in environment


def _from_cluster() -> tuple[str | None, int | None, int | None, Any]:
    """The address of process 0, the number of processes, which this one is and its devices, as JAX finds them.

    In SLURM and Open MPI each has one of the host's devices.
    """
    from jax._src.clusters import ClusterEnv

    return ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, int(greeting.WAIT))


def count() -> int:
    """Number of processes."""
    return jax.process_count() if _together or jax.distributed.is_initialized() else 1


def index() -> int:
    """Which of them this is."""
    return jax.process_index() if count() > 1 else 0


def is_first() -> bool:
    """Whether this is process 0, which decides, writes and shows."""
    return index() == 0


def _client() -> Any:
    from jax._src import distributed  # there is no public name for it

    return distributed.global_state.client


def agree(make: Callable[[], T]) -> T:
    """What `make` returns in process 0, JSON values, to all; elsewhere it is not called.

    All processes are to ask in the same order.
    """
    if count() == 1:
        return make()
    turn = next(_turns)
    if is_first() and turn >= _KEPT:
        _client().key_value_delete(f"{_PREFIX}{turn - _KEPT}")
    return _told(f"{_PREFIX}{turn}", make)


def _told(key: str, make: Callable[[], T]) -> T:
    """As `agree`, under a key of the store."""
    if not is_first():
        return json.loads(_client().blocking_key_value_get(key, _LONG))
    text = json.dumps(make())
    _client().key_value_set(key, text)
    return json.loads(text)


def by_first(act: Callable[[], T], key: str | None = None) -> T:
    """As `agree`, of what may be refused: then process 0 raises why, and the others end without a word.

    Args:
        act: what process 0 does.
        key: a name of its own, if the processes do not ask this in the order of all else.

    Raises:
        InputError: as `act`.
        SystemExit: in other processes, with the code that process 0 ends with.
    """
    if count() == 1:
        return act()
    refused: list[InputError] = []

    def attempt() -> dict[str, Any]:
        try:
            return {"value": act(), "code": 0}
        except InputError as error:
            refused.append(error)
            return {"value": None, "code": error.exit_code}

    found = agree(attempt) if key is None else _told(key, attempt)
    if refused:
        raise refused[0]
    if found["code"]:
        raise SystemExit(found["code"])
    return found["value"]


@contextlib.contextmanager
def first_before_others() -> Iterator[None]:
    """What is done inside is done by process 0 before the others begin, who then find it in a cache.

    An InputError of any of them ends all.

    Raises:
        InputError: as `end_together`.
        SystemExit: in other processes, where process 0 has refused.
    """
    if count() == 1:
        yield
        return
    key = f"{_BEFORE}{next(_befores)}"
    refusals: list[InputError] = []

    def say() -> None:
        if refusals:
            raise refusals[0]

    if not is_first():
        by_first(say, key)
    try:
        yield
    except InputError as error:
        refusals.append(error)
    if is_first():
        by_first(say, key)
    end_together(refusals[0] if refusals else None, f"{key}/refused")


def end_together(reason: InputError | None, key: str | None = None) -> None:
    """Ends all processes where one refuses to go on: who is left alone waits, and is ended by JAX's runtime.

    Args:
        reason: why this process refuses, if it does.
        key: as for `by_first`.

    Raises:
        InputError: `reason`; or without one what the first that refuses has said, after its number.
    """
    said = of_each(str(reason) if reason else None, key)
    if reason:
        raise reason
    for k, text in enumerate(said):
        if text is not None:
            raise InputError(f"process {k}: {text}")


def of_each(value: Any, key: str | None = None) -> list[Any]:
    """JSON values of all processes, in their order, to all of them; `key` as for `by_first`."""
    if count() == 1:
        return [value]
    key, client = key or f"{_PREFIX}{next(_turns)}", _client()
    client.key_value_set(f"{key}/{index()}", json.dumps(value))
    return [json.loads(client.blocking_key_value_get(f"{key}/{k}", _LONG)) for k in range(count())]


def wait_for_all() -> None:
    """Returns once all processes have called this."""
    of_each(None)


def signalled(own: int | None) -> int | None:
    """The number of a signal that some process has received, the same on all; None if none has.

    Args:
        own: that which this process has received, if any.
    """
    if count() == 1:
        return own
    if own is not None and not is_first():
        _client().key_value_set(f"{_STOP}{index()}", str(own), allow_overwrite=True)
    return agree(lambda: _asked() if own is None else own)


def _asked() -> int | None:
    """A signal that another process has received; looked for now and then."""
    global _looked, _found
    now = time.monotonic()
    if _found is None and now - _looked >= _PEEK:
        _looked = now
        told = _client().key_value_dir_get(_STOP)
        _found = int(told[0][1]) if told else None
    return _found


def leave() -> None:
    """Ends what the processes have in common: from here on, each is alone. Waits for all."""
    global _together
    if count() > 1:
        wait_for_all()  # for as long as it takes
        jax.distributed.shutdown()
    _together = False
