"""Downloading and preparing: what happens once, when a data set is not there yet.

Everything is made in a temporary folder inside the data folder and renamed into place when it is whole, so that a
failure leaves nothing half-written and two processes may prepare the same data set at once. What a process that was
killed has left goes when something is prepared there the next time.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnn_jax.data.connectivity import NoAnswerError, Probes, impatient_downloads
from cnn_jax.data.folders import EMBEDDED, Prepared, Request, describe, embedded_root, say
from cnn_jax.data.standin import MissingTensorFlowError, without_tensorflow
from cnn_jax.errors import InputError
from cnn_jax.files import temporary_folder, writable

DOWNLOADING = ("requests.", "urllib3.", "tensorflow_datasets.core.download.")  # modules of such errors
INSTALL = "pip install 'cnn-jax[prepare]'"
OFFLINE = "offline there is the embedded 'digits', or a prepared copy by --data.dir or TFDS_DATA_DIR"
ELSEWHERE = "choose another by --data.dir or TFDS_DATA_DIR"
_DAY = 86_400.0  # seconds after which a download that has not moved counts as abandoned


def prepare(request: Request, root: Path) -> Prepared:
    """Prepares a data set under `root` by its TFDS builder, downloading what it needs.

    The embedded digits go to `embedded_root` where `root` cannot be written.

    Raises:
      InputError: for a name, configuration or version that TFDS does not know, a folder that cannot be written, no
        internet, TensorFlow needed and missing, or a builder that fails for any other reason.
    """
    embedded = request.name == EMBEDDED
    if embedded and not writable(root):
        root = embedded_root()
    if not writable(root):
        _builder(request, root, root)  # an unknown name or version is the first thing to report
        raise InputError(f"the data folder {root} cannot be written; {ELSEWHERE}")
    with _folder_inside(root) as temporary:
        builder = _builder(request, root, temporary)
        download_dir = (temporary if embedded else root) / "downloads"
        with _no_leftovers(download_dir), _one_line_errors(request.full_name, root):
            _prepare(builder, root, download_dir, embedded)
        made = Path(builder.data_dir)
        target = root / made.relative_to(temporary)
        _put_in_place(made, target)
    return describe(str(target.parent.relative_to(root)), target)


def _prepare(builder: Any, root: Path, download_dir: Path, embedded: bool) -> None:
    import tensorflow_datasets as tfds

    probes = Probes()
    if embedded:
        say(f"preparing digits in {root}")
    else:
        missing = {
            url: info.size for url, info in (builder.url_infos or {}).items() if not _have(builder, url, download_dir)
        }
        if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:  # else TFDS says what to do by hand, and knows URLs all the same
            probes.require_any(missing)
        volume = f"; up to {sum(missing.values()) / 2**20:,.0f} MiB to download" if missing else ""
        say(f"preparing {builder.name} {builder.version} in {root}{volume}")
    # The copies that Google keeps are not array_record, and asking for them takes the network.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with _output(bars=not embedded), impatient_downloads(probes), without_tensorflow(type(builder).__module__):
        builder.download_and_prepare(download_dir=download_dir, download_config=config)


def _have(builder: Any, url: str, download_dir: Path) -> bool:
    """Whether TFDS will find `url` among the files downloaded before (as its DownloadManager looks for them)."""
    from tensorflow_datasets.core.download import resource

    name = resource.get_dl_fname(url, builder.url_infos[url].checksum)
    return (download_dir / name).exists() or (download_dir / builder.name / name).exists()


def _builder(request: Request, root: Path, folder: Path) -> Any:
    import tensorflow_datasets as tfds

    if request.name == EMBEDDED:
        from cnn_jax.data.digits import Digits

        cls: Any = Digits
    else:
        known = [EMBEDDED, *tfds.list_builders(with_community_datasets=False)]
        if request.name not in known:
            close = difflib.get_close_matches(request.name, known, n=5)
            hint = f"did you mean {', '.join(close)}?" if close else "see the catalogue of TensorFlow Datasets"
            raise InputError(
                f"data set {request.name!r}: neither prepared in {root} nor known to TensorFlow Datasets; {hint}"
            )
        cls = tfds.builder_cls(request.name)
    try:
        return cls(data_dir=folder, config=request.config, version=request.version, file_format="array_record")
    except (ValueError, AssertionError) as error:
        configs = ", ".join(cls.builder_configs) or "none"
        versions = ", ".join(str(version) for version in (cls.VERSION, *cls.SUPPORTED_VERSIONS) if version)
        raise InputError(
            f"data set {request.name}: no configuration {request.config} in version {request.version or 'current'}; "
            f"it has configurations {configs} and versions {versions or 'by configuration'}"
        ) from error


@contextlib.contextmanager
def _one_line_errors(name: str, root: Path) -> Iterator[None]:
    """Turns whatever a builder raises into an InputError; the original stays as its cause."""
    try:
        yield
    except Exception as error:
        for cause in _chain(error):
            if isinstance(cause, MissingTensorFlowError):
                raise InputError(f"preparing {name} needs TensorFlow ({cause}): {INSTALL}") from error
            if isinstance(cause, ImportError) and (cause.name or "").split(".")[0] == "tensorflow":
                raise InputError(f"preparing {name} needs TensorFlow: {INSTALL}") from error
            if isinstance(cause, NoAnswerError):
                trouble = f"is not prepared in {root} and cannot be downloaded: no answer from {cause}"
                raise InputError(f"data set {name} {trouble}; {OFFLINE}") from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if any(type(cause).__module__.startswith(DOWNLOADING) for cause in _chain(error)):
            raise InputError(f"downloading {name} failed: {reason}; {OFFLINE}") from error
        raise InputError(f"preparing {name} in {root} failed: {reason}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def _folder_inside(root: Path) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(temporary_folder(root, ".preparing-"))
        except OSError as error:
            raise InputError(f"the data folder {root} cannot be written ({error.strerror}); {ELSEWHERE}") from error
        yield temporary


@contextlib.contextmanager
def _no_leftovers(download_dir: Path) -> Iterator[None]:
    """After a failure, removes what it left half downloaded or extracted; what is whole stays, for the next try.

    What nobody has touched for a day goes before.
    """
    before = set(_unfinished(download_dir))
    for path in before:
        with contextlib.suppress(OSError):
            if time.time() - max(part.stat().st_mtime for part in (path, *path.iterdir())) > _DAY:
                shutil.rmtree(path, ignore_errors=True)
    try:
        yield
    except BaseException:
        for path in set(_unfinished(download_dir)) - before:
            shutil.rmtree(path, ignore_errors=True)
        for folder in sorted(download_dir.glob("**/"), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()  # only empty ones go
        raise


def _unfinished(download_dir: Path) -> Iterator[Path]:
    """Folders that TFDS downloads into ("X.tmp.ID") and extracts into ("incomplete.ID_X")."""
    for path in download_dir.glob("**/"):
        if ".tmp." in path.name or path.name.startswith("incomplete."):
            yield path


def _put_in_place(made: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(made, target)
    except OSError:
        if not target.is_dir():  # else another process has prepared the same meanwhile
            raise


@contextlib.contextmanager
def _output(bars: bool) -> Iterator[None]:
    """Keeps TFDS's headline off stdout (ours is on stderr), and its progress bars off stderr unless `bars`."""
    from tensorflow_datasets.core.utils import tqdm_utils

    shown = tqdm_utils._active
    tqdm_utils.display_progress_bar(shown and bars)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tqdm_utils.display_progress_bar(shown)
