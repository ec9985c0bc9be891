"""From a command line to a mount command over a stack, for the commands that mount a stack."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from ..layers.psshfs.options import Symlinks
from .comparing import COMPARE_GROUP, second_stack
from .mounting import Attach, Attachment, MountCommand
from .stack import Element, Ground, built
from .status import CommandError, Status
from .words.options import HOST_GROUP, Settings, WordGroup, host_options, parse_words
from .words.sshwords import PSSHFS_GROUP

_log = logging.getLogger(__name__)


def stack_command(
    program: str,
    elements: Sequence[Element],
    special: str,
    mountpoint: str,
    words: Sequence[str],
    *,
    foreground: bool,
    verbose: bool,
) -> MountCommand:
    """Return the command that mounts `special` through `elements` (top first) on `mountpoint`.

    `words` are all values of `-o`. Words of the elements come before those of the host mount, the
    lower the element the earlier: with a tmpfs at the bottom, `uid` is the owner of its root.
    Errors: CommandError for words that nobody knows, for a password that cannot be read, and for a
    mount point inside of the directory of `local`.
    """
    groups = _groups(elements, words)
    *below, host = parse_words(words, [*groups, HOST_GROUP])
    settings = {group.title: found for group, found in zip(groups, below, strict=True)}
    if settings.get(PSSHFS_GROUP.title, {}).pop("password_stdin", False):
        settings[PSSHFS_GROUP.title]["password"] = _password()
    _tell(program, [host, *below])
    if settings.get(PSSHFS_GROUP.title, {}).pop("passive", False):
        settings[PSSHFS_GROUP.title]["descriptors"] = (os.dup(0), os.dup(1))
        foreground = True
    options = host_options(host)
    ground = Ground(special, options.readonly, settings)
    place = os.path.realpath(mountpoint)
    for bottom, directory in _ends(elements, special, words):
        if bottom.name == "local":
            _refuse_loop(os.path.realpath(directory), place)

    @asynccontextmanager
    async def attach() -> AsyncIterator[Attachment]:
        async with built(elements, ground) as stack:
            told, given = options, words
            for reason in stack.rdonly_reasons:
                # Critical: lesser things are not said on the terminal while it is being mounted.
                _log.critical("%s: mounted read-only: %s", special, reason)
                told, given = replace(options, readonly=True), [*words, "ro"]
            held = stack.host_words
            given = [*given, *sorted(held)]
            told = replace(
                told,
                readonly=told.readonly or "ro" in held,
                default_permissions=told.default_permissions or "default_permissions" in held,
            )
            rules = ground.rules if ground.has_faults else None
            yield Attachment(stack.server, place, told, given, forget=stack.forget, rules=rules)

    return mount_command(
        program, attach, host, mountpoint=place, foreground=foreground, verbose=verbose
    )


def _tell(program: str, settings: Sequence[Settings]) -> None:
    """Say which words have no effect, and why."""
    for found in settings:
        for note in found.pop("notes", {}).values():
            print(f"{program}: {note}", file=sys.stderr)


def _refuse_loop(directory: str, place: str) -> None:
    """Refuse to mount a directory inside of itself: who serves it would wait for himself there."""
    if os.path.commonpath((directory, place)) == directory != place:
        raise CommandError(
            Status.USAGE,
            f"{place} lies in {directory}, which is to be mounted there; give one outside",
        )


def served_ground(
    elements: Sequence[Element], special: str, words: Sequence[str], *, readonly: bool
) -> Ground:
    """Return what the elements of a stack are told that is served on standard input and output.

    Errors: as `stack_command`, and CommandError for a password on standard input.
    """
    groups = _groups(elements, words)
    settings = dict(zip((group.title for group in groups), parse_words(words, groups), strict=True))
    if settings.get(PSSHFS_GROUP.title, {}).get("password_stdin"):
        raise CommandError(
            Status.USAGE, "password_stdin: standard input is the client's; give a key"
        )
    if settings.get(PSSHFS_GROUP.title, {}).get("passive"):
        raise CommandError(Status.USAGE, "passive: standard input is the client's; give a host")
    if PSSHFS_GROUP.title in settings:
        psshfs = settings[PSSHFS_GROUP.title]
        # A client hears of a failed write in the answer to that write and, as a rule, in no other:
        # most do not look at what CLOSE says.
        psshfs.setdefault("write_behind", 0)
        # Each session has its own stack, and clients with several sessions (rclone) want to see
        # in one what they have done in another.
        psshfs.setdefault("cache_timeout_ns", 0)
        # What a link says is for the client to follow, or not, as it is with any SFTP server.
        psshfs.setdefault("symlinks", Symlinks.RAW)
    return Ground(special, readonly, settings)


def _ends(
    elements: Sequence[Element], special: str, words: Sequence[str]
) -> list[tuple[Element, str]]:
    """Return the bottom of each stack that is built, and what it takes."""
    ends = [(elements[-1], special)]
    if any(COMPARE_GROUP in element.groups for element in elements):
        second, second_special = second_stack(words)
        ends += [(element, second_special) for element in second[-1:]]
    return ends


def _groups(elements: Sequence[Element], words: Sequence[str]) -> list[WordGroup]:
    """Return the words that the elements understand, once; the lower the element the earlier."""
    groups = [group for element in reversed(elements) for group in element.groups]
    if COMPARE_GROUP in groups:
        second, _ = second_stack(words)
        groups += [group for element in reversed(second) for group in element.groups]
    return list({group.title: group for group in groups}.values())


def mount_command(
    program: str,
    attach: Attach,
    host: Settings,
    *,
    mountpoint: str | None = None,
    foreground: bool,
    verbose: bool,
) -> MountCommand:
    """Return a command with what the settings of HOST_GROUP say about its process."""
    verbose = verbose or host.get("verbose", False)
    logfile = host.get("log")
    if logfile is not None:
        logfile = os.path.abspath(logfile)
        try:
            open(logfile, "ab").close()
        except OSError as exc:
            raise CommandError(
                Status.USAGE, f"option 'log={logfile}': {exc.strerror}; give a file to write to"
            ) from None
    return MountCommand(
        program=program,
        attach=attach,
        mountpoint=mountpoint,
        foreground=foreground or verbose or host.get("debug", False),
        verbose=verbose,
        logfile=logfile,
        metrics_port=host.get("metrics_port"),
    )


def _password() -> str:
    """Return the first line of standard input; pam_mount ends it without a newline."""
    line = sys.stdin.readline()
    if not line:
        raise CommandError(
            Status.USAGE, "password_stdin: standard input ended before any password; give one"
        )
    return line.removesuffix("\n")
