"""Bit flips and truncations of outputs and of objects in DVC's cache: does `aimback.workflow.verify` name each?"""

import os
import random
from pathlib import Path

from aimback.workflow.verify import Checked
from benchmarks.campaigns.scratch import Scratch


def damage(count: int, folder: Path) -> list[str]:
    """So many of either, one after the other; size and time of a flipped file stay as they were."""
    scratch = Scratch(folder)
    scratch.run("dvc", "repro")
    return [f"{count} {what}: {named} named" for what, named in named_damage(folder, count).items()]


def named_damage(folder: Path, count: int) -> dict[str, int]:
    """How many of `count` bit flips and of as many truncations are named, and nothing beside them."""
    chance = random.Random(count)
    whole = Checked(folder)
    if whole.damages:
        raise RuntimeError("it is not whole before the damage")
    files = sorted(path for path in whole.files if (folder / path).stat().st_size > 0)
    named = {}
    for what, change in (("bit flips", _flipped), ("truncations", _cut)):
        named[what] = 0
        for _ in range(count):
            path = chance.choice(files)
            file, at = folder / path, (folder / path).stat()
            data = file.read_bytes()
            file.chmod(0o644)
            file.write_bytes(change(data, chance))
            os.utime(file, ns=(at.st_atime_ns, at.st_mtime_ns))
            named[what] += [found.path for found in Checked(folder).damages] == [path]
            file.write_bytes(data)
            os.utime(file, ns=(at.st_atime_ns, at.st_mtime_ns))
            file.chmod(at.st_mode)
    return named


def _flipped(data: bytes, chance: random.Random) -> bytes:
    bit = chance.randrange(8 * len(data))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]
