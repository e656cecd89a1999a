"""``quarterdeck completion``: the script that makes a shell complete commands and options. Nothing is installed by itself."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import get_completion_inspect_parameters, shell_complete

VARIABLE = "_QUARTERDECK_COMPLETE"
"""Set by the script when it asks this program what may come next."""


class Shell(StrEnum):
    """Shells that complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    context: typer.Context,
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="Your shell.", show_choices=False)],
) -> int:
    """Print the script that completes commands and options. Try it: source <(quarterdeck completion bash)."""
    get_completion_inspect_parameters()
    return shell_complete(context.find_root().command, {}, "quarterdeck", VARIABLE, f"source_{shell}")


def prepare() -> None:
    """Let this program answer a shell that asks what may come next."""
    if VARIABLE in os.environ:
        get_completion_inspect_parameters()  # it makes the shells known; the options that it also describes are not added
