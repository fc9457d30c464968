"""How the demo looks: coloured on a terminal, plain text in a pipe, nothing for `--json`."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

WIDTH_MAX = 100
WIDTH_IN_PIPE = 100
INDENT = 3
LABEL_WIDTH = 10


class Line(NamedTuple):
    """One line of a receipt, as texts: what, how much, at which price, makes what, and a note."""

    label: str
    quantity: str
    rate: str
    amount: str
    note: str = ""
    style: str = ""


def make_console(*, is_quiet: bool) -> Console:
    """Return a console for stdout; in a pipe it prints plain text of a fixed width."""
    console = Console(highlight=False, markup=False, emoji=False, quiet=is_quiet)
    if not console.is_terminal:
        console = Console(
            highlight=False, markup=False, emoji=False, quiet=is_quiet, width=WIDTH_IN_PIPE
        )
    return console


class Screen:
    """Prints the demo's parts, wrapped to the terminal's width."""

    def __init__(self, console: Console) -> None:
        """Take the console to print on."""
        self._console = console
        self._width = min(console.width, WIDTH_MAX)
        self._scene = 0

    def title(self, name: str, rest: str) -> None:
        """Print the first line."""
        self._print((name, "bold"), (f"  {rest}", "dim"))
        self.gap()

    def gap(self) -> None:
        """Print an empty line."""
        self._console.print()

    def field(self, label: str, value: str, note: str = "") -> None:
        """Print a labelled value and what there is to say of it, wrapped below its beginning."""
        style = {"you": "cyan", "model": ""}.get(label, "")
        text = Text.assemble((value, style), (f"  {note}" if note else "", "dim"))
        self._hang(Text(label.ljust(LABEL_WIDTH), "dim"), text)

    def heading(self, title: str, model: str, path: str = "") -> None:
        """Begin a numbered scene; the path stands to the right where it fits."""
        self._scene += 1
        self.gap()
        left = Text.assemble((f"{self._scene}  ", "bold cyan"), (title, "bold"))
        if model:
            left.append(f"  {model}", "magenta")
        right = f"POST {path}" if path else ""
        room = self._width - left.cell_len - len(right)
        if right and room >= 2:
            left.append(" " * room + right, "dim")
        self._console.print(left, soft_wrap=True)
        if right and room < 2:
            self._print((" " * INDENT + right, "dim"))

    def answer_begins(self) -> "StreamedText":
        """Begin the model's words; more of them may come."""
        self._print((" " * INDENT + "model".ljust(LABEL_WIDTH), "dim"), end="")
        return StreamedText(self._console, self._width, INDENT + LABEL_WIDTH)

    def receipt(self, lines: Sequence[Line]) -> None:
        """Print a receipt, amounts aligned at their decimal points."""
        decimals = max(len(line.amount.partition(".")[2]) for line in lines)
        amounts = [
            line.amount + " " * (decimals - len(line.amount.partition(".")[2])) for line in lines
        ]
        label, quantity, rate, amount = (
            max(len(text) for text in texts)
            for texts in (
                [line.label for line in lines],
                [line.quantity for line in lines],
                [line.rate for line in lines],
                amounts,
            )
        )
        for line, text in zip(lines, amounts, strict=True):
            self._print(
                (" " * INDENT + line.label.ljust(label), line.style),
                (f"  {line.quantity.rjust(quantity)} {line.rate.ljust(rate)}  ", "dim"),
                (text.rjust(amount), line.style),
                (f"  {line.note}", line.style or "dim") if line.note else ("", ""),
            )

    def refusal(self, status: int, code: str, message: str) -> None:
        """Print a refusal: its status, its code, and its words as the SDKs show them."""
        self._hang(Text(), Text.assemble((f"{status} {code}", "bold red")))
        self._hang(Text(), Text(message))

    def note(self, text: str) -> None:
        """Print something said beside the matter."""
        self._hang(Text(), Text(text, "dim"))

    def good(self, text: str) -> None:
        """Print a good result."""
        self._hang(Text(), Text(text, "green"))

    def paragraph(self, text: str) -> None:
        """Print a paragraph at the margin."""
        for line in Text(text).wrap(self._console, self._width):
            self._console.print(line, soft_wrap=True)

    def verbatim(self, text: str) -> None:
        """Print something to copy: never broken by us, only by the terminal."""
        for line in text.splitlines():
            self._console.print(Text(line, "cyan"), soft_wrap=True)

    def _hang(self, head: Text, text: Text) -> None:
        """Print text behind a head, going on below its beginning."""
        indent = INDENT + head.cell_len
        for number, line in enumerate(text.wrap(self._console, self._width - indent)):
            start = Text(" " * INDENT).append_text(head) if number == 0 else Text(" " * indent)
            line.rstrip()
            self._console.print(start.append_text(line), soft_wrap=True)

    def _print(self, *parts: tuple[str, str], end: str = "\n") -> None:
        line = Text.assemble(*(part for part in parts if part[0]))
        if end:
            line.rstrip()
        self._console.print(line, end=end, soft_wrap=True)


class StreamedText:
    """Text that is printed as it arrives, wrapped between words below where it began."""

    def __init__(self, console: Console, width: int, indent: int) -> None:
        """Begin at column `indent`."""
        self._console = console
        self._width = width
        self._indent = indent
        self._column = indent

    def add(self, text: str) -> None:
        """Print a piece of the text: some words, each with the space before it."""
        for number, line in enumerate(text.split("\n")):
            if number:
                self._break()
            for word in line.replace(" ", "\0 ").split("\0"):
                self._add_word(word)

    def end(self) -> None:
        """End the text."""
        self._console.print()

    def _add_word(self, word: str) -> None:
        if self._column + len(word) > self._width:
            self._break()
            word = word.lstrip()
        self._console.print(Text(word), end="", soft_wrap=True)
        self._column += len(word)

    def _break(self) -> None:
        self._console.print("\n" + " " * self._indent, end="", soft_wrap=True)
        self._column = self._indent
