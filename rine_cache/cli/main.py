"""Entry point: the group of commands, each loaded when it is called, and how errors are shown."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module, metadata
from keyword import iskeyword
from pathlib import Path

import click

from rine_cache.cli.options import log_to
from rine_cache.errors import RineCacheError, nearest
from rine_cache.files import is_full, refusal
from rine_cache.threads import wait_without_spinning

LOG = logging.getLogger(__name__)

# Command, its module and a line of help: `rine-cache --help` must answer without importing any of them.
COMMANDS = {
    "sample": ("data", "Make the sample's images on this machine."),
    "dataset": ("dataset", "Add, list, check and audit data sets."),
    "manifest": ("data", "List a data set's images."),
    "extract": ("features", "Run the frozen encoder once; keep every block's CLS token."),
    "join": ("features", "Make one cache of its shards."),
    "verify": ("features", "Re-read caches and check every byte."),
    "info": ("features", "Say what a cache, manifest or head is of."),
    "export": ("packs", "Pack caches and manifests, without images, for another machine."),
    "import": ("packs", "Check a pack and use its caches here."),
    "train": ("heads", "Train an experiment's heads from caches."),
    "ablate": ("ablate", "Compare subsets of the blocks that a method reads."),
    "score": ("heads", "Score a cache with trained heads."),
    "head": ("heads", "Import, export, and look into heads."),
    "predict": ("predict", "Score your own images with a trained head."),
    "evaluate": ("results", "Turn scores into metrics by benchmark and protocol."),
    "leaderboard": ("results", "Build or show the leaderboard."),
    "config": ("config", "Check a configuration, or print its schema."),
}


class _LazyGroup(click.Group):
    """Knows its commands' names and help by heart, and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"rine_cache.cli.{COMMANDS[cmd_name][0]}")
        # A command named like a keyword of Python is a function with an underscore after it.
        command: click.Command = getattr(module, f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"no command {args[0]!r}; {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(metadata.version("rine-cache"), package_name="rine-cache")
def cli() -> None:
    """Run a frozen CLIP once, cache every block's CLS token, and benchmark detectors from the cache.

    The whole pipeline runs as `snakemake`; its rules call these commands. COMMAND --help gives an example of each.
    """


def main() -> None:
    """Run the command line; a user's error is one message and exit status 2, never a traceback."""
    log_to(None)
    wait_without_spinning()
    try:
        sys.exit(cli.main(prog_name="rine-cache", standalone_mode=False))
    except RineCacheError as error:
        LOG.error("%s", error)
        sys.exit(2)
    except OSError as error:
        if not is_full(error):
            raise
        # What commands write to files, they tell of themselves: this is what was printed.
        LOG.error("%s", refusal(Path(error.filename or "the output"), error))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python prints what is left once more when it ends
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        LOG.error("interrupted; an extraction goes on from there when the same command is run again")
        sys.exit(130)
