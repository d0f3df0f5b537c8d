"""The options that tyro makes of dataclasses, read off them for help and for messages, and the parts among them."""

from cnn_jax.options.helping import help_text
from cnn_jax.options.listing import Group, Option, commands, groups
from cnn_jax.options.members import Member, places
from cnn_jax.options.reading import check_fields, registry, take_texts

__all__ = [
    "Group",
    "Member",
    "Option",
    "check_fields",
    "commands",
    "groups",
    "help_text",
    "places",
    "registry",
    "take_texts",
]
