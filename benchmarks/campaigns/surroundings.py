"""The same outputs in another folder, with other thread counts, locale, umask, time zone and without the run cache."""

from pathlib import Path

from benchmarks.campaigns.scratch import Scratch

_PLAIN = {"OMP_NUM_THREADS": "1"}
SURROUNDINGS = {
    "another path, with a space": (_PLAIN, 0o022, ()),
    "2 threads": ({"OMP_NUM_THREADS": "2"}, 0o022, ("hardware.threads=2",)),
    "4 threads": ({"OMP_NUM_THREADS": "4"}, 0o022, ("hardware.threads=4",)),
    "another locale and time zone": (
        {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"},
        0o022,
        (),
    ),
    "no locale, hash seed 1": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONHASHSEED": "1"}, 0o022, ()),
    "umask 077": (_PLAIN, 0o077, ()),
}


def surroundings(count: int, folder: Path) -> list[str]:
    """The first so many of them, each in a clean copy and without the run cache."""
    plain = Scratch(folder / "plain")
    plain.run("dvc", "repro")
    wanted = plain.hashes()
    rows = []
    for name, (env, umask, settings) in list(SURROUNDINGS.items())[:count]:
        other = Scratch(folder / name)
        for setting in settings:
            key, _, value = setting.rpartition(".")[2].partition("=")
            other.edit("conf/hardware/auto.yaml", {rf"^{key}: \S+": f"{key}: {value}"})
        other.run("dvc", "repro", "--no-run-cache", env=env, umask=umask)
        got = other.hashes()
        differ = sorted(path for path in wanted.keys() | got.keys() if wanted.get(path) != got.get(path))
        rows.append(f"{name}: {'equal' if not differ else 'not equal: ' + ', '.join(differ)}")
    return rows
