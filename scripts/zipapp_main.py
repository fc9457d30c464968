"""What dist/llmproxy runs first: refuse the wrong Python in plain words, then hand over to shiv.

`build_zipapp.sh` fills in BUILT_FOR and packs this file as the archive's `__main__.py`. It must
stay readable to old Pythons, and may hold no braces: shiv formats it as a template.
"""

import os
import shutil
import sys

BUILT_FOR = "@BUILT_FOR@"
"""Python version, system and machine, as `this_python` prints them."""


def this_python() -> str:
    """Return what compiled modules depend on, as in "3.11 Linux x86_64"."""
    version = "%d.%d%s" % (*sys.version_info[:2], getattr(sys, "abiflags", ""))
    system = os.uname()
    return "%s %s %s" % (version, system.sysname, system.machine)


def require_the_right_python() -> None:
    """Return on the Python the file was built for; else start that one, or exit and say so."""
    here = this_python()
    if here == BUILT_FOR:
        return
    python = "python" + BUILT_FOR.split(maxsplit=1)[0]
    other = shutil.which(python)
    same_machine = here.split()[1:] == BUILT_FOR.split()[1:]
    if same_machine and other and "llmproxy" not in getattr(sys, "_xoptions", ()):
        os.execv(other, [other, "-I", "-X", "llmproxy", *sys.argv])
    sys.exit(
        "llmproxy: this file was built for Python %s; this is Python %s.\n"
        "Install %s, or build the file for this Python: ./build_zipapp.sh in a clone of llmproxy."
        % (BUILT_FOR, here, python)
    )


def require_a_place_to_unpack() -> None:
    """Make shiv's folder, for its owner alone; exit and say what to set where that fails."""
    if os.environ.get("HOME") == "":
        del os.environ["HOME"]  # shiv would unpack into the root folder
    root = os.environ.get("SHIV_ROOT") or os.path.expanduser("~/.shiv")
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
    except OSError as error:
        sys.exit(
            "llmproxy: cannot unpack itself: %s.\n"
            "Set SHIV_ROOT to a folder that you, and nobody else, can write." % error
        )


if __name__ == "__main__":
    require_the_right_python()
    require_a_place_to_unpack()

    import _bootstrap  # type: ignore[import-not-found]  # shiv's, in the archive

    _bootstrap.bootstrap()
