"""How much memory a process takes, as Linux tells it."""

from pathlib import Path

KIB_PER_MIB = 1024


class Memory:
    """The resident memory of a process; nothing is known of it where there is no /proc."""

    def __init__(self, pid: int) -> None:
        self._proc = Path("/proc") / str(pid)
        self._before_mib = 0

    def begin(self) -> None:
        """From here on count what it takes more than now."""
        if self._proc.exists():
            (self._proc / "clear_refs").write_text("5")  # the peak is what it takes now
            self._before_mib = self._mib("VmRSS")

    def grown_mib(self) -> int:
        """The most that it has taken since then beyond what it took then, in MiB."""
        return self._mib("VmHWM") - self._before_mib if self._proc.exists() else 0

    def _mib(self, name: str) -> int:
        lines = (self._proc / "status").read_text().splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
        return int(kib) // KIB_PER_MIB
