"""Run a command as an ordinary user, also where all tests run as root.

Root's Python may live in a folder that is closed to others (``/root``). Then
the command gets a view of its own of the file system, in which an empty
folder lies over the closed one, and in it what Python needs.

::

    python -m tests.hostile.ordinary_user python -c "import torch"
"""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from autograder.chapters import ROOT

USER = 12345  # nobody has this number
NEEDED = [Path(sys.base_prefix), Path(sys.prefix), ROOT]
# Arguments: a spare folder, a closed folder or none, what is needed of it,
# then "--" and the command.
VIEW = """
spare=$1 closed=$2; shift 2
number=0
for needed; do
    [ "$needed" = -- ] && break
    number=$((number + 1))
    mkdir -p "$spare/$number"
    mount --bind "$needed" "$spare/$number"
done
[ -z "$closed" ] || mount -t tmpfs -o mode=755 none "$closed"
number=0
while [ "$1" != -- ]; do
    number=$((number + 1))
    mkdir -p "$1"
    mount --bind "$spare/$number" "$1"
    umount "$spare/$number"
    shift
done
shift
exec "$@"
"""


def as_ordinary_user(command: list[str], home: Path) -> list[str]:
    """Return the command that runs another as an ordinary user.

    Args:
        command: the words of the command.
        home: a folder that becomes the user's, with all that is in it.
    """
    settings = [f"HOME={home}", f"TMPDIR={home}", "PYTHONDONTWRITEBYTECODE=1"]
    if os.geteuid() != 0:
        return ["env", *settings, *command]
    owner = f"{USER}:{USER}"  # of links, too, and not of what they lead to
    subprocess.run(["chown", "-hR", owner, home], check=True)
    closed = next(filter(_is_closed, _ancestors(NEEDED)), None)
    inside = [p for p in NEEDED if closed and closed in p.parents]
    return [
        *("unshare", "--mount", "sh", "-ec", VIEW, "sh"),
        *(mkdtemp(dir=home), str(closed or ""), *map(str, inside), "--"),
        *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
        *("env", *settings, *command),
    ]


@cache
def why_not() -> str:
    """Say why a command can't be run as an ordinary user here, if so."""
    home = Path(mkdtemp(prefix="ordinary-"))
    home.chmod(0o755)
    try:
        subprocess.run(
            as_ordinary_user([sys.executable, "-c", "import torch"], home),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    except FileNotFoundError as error:
        return f"{error.filename} is missing"
    except subprocess.CalledProcessError as error:
        return error.stderr.strip().rpartition("\n")[2] or str(error)
    finally:
        shutil.rmtree(home)
    return ""


def _ancestors(paths: list[Path]) -> list[Path]:
    """Return all folders above the paths, the outermost first."""
    found = {folder for path in paths for folder in path.parents}
    return sorted(found, key=lambda folder: len(folder.parts))


def _is_closed(folder: Path) -> bool:
    return not folder.stat().st_mode & 0o001


if __name__ == "__main__":
    place = Path(mkdtemp(prefix="ordinary-"))
    words = as_ordinary_user(sys.argv[1:], place)
    sys.exit(subprocess.run(words, check=False).returncode)
