"""Data sets that cannot be prepared: one line that says why, and nothing half-written."""

from __future__ import annotations

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.errors import InputError
from tests.small_sets import assert_nothing_left, needs_no_tensorflow

tfds = pytest.importorskip("tensorflow_datasets")


def small_builder(body):
    """A TFDS builder called "probe_set" whose examples come from `body`."""

    class ProbeSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 1)),
                "label": tfds.features.ClassLabel(num_classes=2),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": body(self, dl_manager)}

        def _generate_examples(self):
            raise NotImplementedError

    return ProbeSet


@pytest.fixture
def failing(own_folders, monkeypatch):
    """Prepares a builder made of a generator function; returns the InputError's message and the data folder."""

    def run(body):
        monkeypatch.setattr(tfds, "list_builders", lambda **_: ["probe_set"])
        monkeypatch.setattr(tfds, "builder_cls", lambda name: small_builder(body))
        with pytest.raises(InputError) as caught:
            data.load("probe_set", "train")
        message = str(caught.value)
        assert "\n" not in message
        return message, own_folders[1]

    return run


@needs_no_tensorflow
def test_tensorflow_needed_is_one_line(failing):
    def body(builder, dl_manager):
        from tensorflow_datasets.core.utils import lazy_imports_utils

        yield 0, {"image": np.zeros((2, 2, 1), np.uint8), "label": 0}
        lazy_imports_utils.tensorflow.image.resize(None)

    message, root = failing(body)
    assert message == "preparing probe_set needs TensorFlow (tf.image.resize): pip install 'cnn-jax[prepare]'"
    assert_nothing_left(root)


@needs_no_tensorflow
def test_plain_import_of_tensorflow_is_one_line(failing):
    def body(builder, dl_manager):
        import tensorflow  # noqa: F401

        yield

    message, root = failing(body)
    assert message == "preparing probe_set needs TensorFlow: pip install 'cnn-jax[prepare]'"
    assert_nothing_left(root)


def test_failing_builder_leaves_nothing(failing):
    def body(builder, dl_manager):
        yield 0, {"image": np.zeros((2, 2, 1), np.uint8), "label": 0}
        (dl_manager.download_dir / "half.tmp.0123").mkdir()
        (dl_manager.download_dir / "half.tmp.0123" / "file").write_text("half")
        raise OSError("disk\nfull")

    message, root = failing(body)
    assert "probe_set" in message
    assert "disk full" in message
    assert_nothing_left(root)


def test_interrupted_preparing_leaves_nothing(own_folders, monkeypatch):
    def body(builder, dl_manager):
        yield 0, {"image": np.zeros((2, 2, 1), np.uint8), "label": 0}
        raise KeyboardInterrupt

    monkeypatch.setattr(tfds, "list_builders", lambda **_: ["probe_set"])
    monkeypatch.setattr(tfds, "builder_cls", lambda name: small_builder(body))
    with pytest.raises(KeyboardInterrupt):
        data.load("probe_set", "train")
    assert_nothing_left(own_folders[1])


def test_data_folder_that_cannot_be_written(own_folders):
    own_folders[1].chmod(0o555)  # which would not stop the superuser
    with pytest.raises(InputError, match=r"cannot be written; choose another by --data\.dir"):
        data.load("mnist", "train")
    assert_nothing_left(own_folders[1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnits", "did you mean mnist"),
        ("digit", "digits"),
        ("zzzzzzzzz", "catalogue"),
        ("mnist:9.9.9", "3.0.1"),
        ("digits:9.9.9", "1.0.0"),
        ("digits/small", "configurations none"),
        ("emnist/nope", "letters"),
        ("mnist:latest", "NAME:VERSION"),
        ("../mnist", "NAME:VERSION"),
        ("mnist/..", "NAME:VERSION"),
        ("", "NAME:VERSION"),
    ],
)
def test_unknown_names(name, expected, own_folders):
    with pytest.raises(InputError) as caught:
        data.load(name, "train")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_nothing_left(own_folders[1])
