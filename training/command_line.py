"""The command lines of training, evaluation and ablation: options made from their settings."""

import argparse
from collections.abc import Sequence

from transformers import HfArgumentParser

from .settings import RECIPES, DataSettings, TrainingSettings


class CommandHelp(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The text above the options as it was written, commands on their own lines; all defaults."""


class OptionParser(HfArgumentParser):
    """Options of settings. HfArgumentParser says of `--no_option` what it says of `--option`."""

    def add_argument(self, *names, **options):
        if (name := names[0]).startswith("--no_"):
            options = {**options, "help": f"The opposite of --{name.removeprefix('--no_')}."}
        return super().add_argument(*names, **options)


def parse_command_line(
    kind: type[DataSettings], about: str, usage: str, arguments: Sequence[str] | None = None
) -> DataSettings:
    """Settings of a command line; a wrong one ends the program with one line that says so.

    Args:
        kind: the class of the settings. about: what `--help` says first. arguments: None: those
            that the program was started with.
    """
    parser = OptionParser(
        kind, description=about, usage=usage, allow_abbrev=False, formatter_class=CommandHelp
    )
    if kind is TrainingSettings:
        parser.set_defaults(**RECIPES.get(recipe_of(arguments), {}))
    try:
        settings, unknown = parser.parse_args_into_dataclasses(
            arguments, return_remaining_strings=True
        )
    except ValueError as error:
        parser.error(str(error))
    if unknown:
        parser.error(f"there are no such options: {' '.join(unknown)}")
    return settings


def recipe_of(arguments: Sequence[str] | None) -> str | None:
    """The recipe that a command line names; its defaults are needed before the line is read."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe")
    return parser.parse_known_args(arguments)[0].recipe
