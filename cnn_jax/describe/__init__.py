"""The volume table: each layer's geometry, volumes, costs and receptive field, found without running the model.

    print(describe(models.build("lenet5"), (32, 32, 1)))

A model is traced to JAX's operations with its layers marked. The counts of a layer come from its fields and shapes;
receptive fields are carried through all operations, those of the layers in their direct lowering.
"""

from cnn_jax.describe.receptive import Field
from cnn_jax.describe.tracing import describe
from cnn_jax.describe.volumes import LayerRow, Volumes

__all__ = ["Field", "LayerRow", "Volumes", "describe"]
