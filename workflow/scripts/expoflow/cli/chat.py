"""`expoflow chat`: answers to your questions at two alphas of a pair, one below the other."""

import argparse
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from expoflow.cli.arguments import alpha_text, project_arguments, project_of
from expoflow.errors import ConfigError, DataError, shown

if TYPE_CHECKING:
    from expoflow.project.conversation import Conversation, Counted

COMMANDS = "/alpha 0.5 changes the second alpha, /alpha 0,0.5 both; /new starts a new conversation; /quit ends the chat"
MINUS = re.compile(
    r"-[\d.]+(,|$)"
)  # argparse takes text like this for a value, not for an option: numbers and alphas such as -1,0.3
NAMES = {"0": "aligned", "-1": "sft"}
PAUSE = 0.1  # seconds between two updates of the token count


def chat_arguments(parser: argparse.ArgumentParser) -> None:
    parser._negative_number_matcher = MINUS
    project_arguments(parser)
    parser.add_argument("--pair", metavar="PAIR", help="the pair; needed if the config has several")
    parser.add_argument(
        "--alphas",
        type=two_alphas,
        metavar="A,B",
        help="two alphas, which need not be in the run; default: 0 (the aligned model) and the alpha that the run chose",
    )
    parser.epilog = (
        f"Each line is a question. {COMMANDS}, as do Ctrl-D and Ctrl-C. A conversation may have any number of turns. Each alpha keeps"
        " its own answers; an alpha that joins later is asked the earlier questions first. Both use the same random numbers and"
        " the settings of the config's section generate, so a prompt of the run gets the answer that the run has (its first sample)."
        " Nothing is kept, and nothing is written into the run's folder."
    )


def two_alphas(text: str) -> tuple[str, str]:
    """Two different alphas, spelled as the config spells them. Raises ArgumentTypeError."""
    alphas = tuple(alpha_text(each.strip()) for each in text.split(","))
    if len(alphas) != 2 or alphas[0] == alphas[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not two different alphas, such as 0,0.3")
    return alphas


def chat(arguments: argparse.Namespace) -> int:
    from expoflow.project import conversation

    project = project_of(arguments)
    named = ["--config", str(arguments.config)] if arguments.config else []
    remedy = shlex.join(["expoflow", "run", *named, str(project.folder)])
    with project.entered() as config:
        pair = conversation.pair_of(config, arguments.pair)
        alphas = arguments.alphas or conversation.compared(config, pair)
        begun, best = time.monotonic(), conversation.chosen_alpha(pair)
        with conversation.speaking(config, pair, alphas[0], remedy, _say) as speaker:
            _say(
                f"{pair}: ready after {time.monotonic() - begun:.0f} s; alpha {alphas[0]} and {alphas[1]} answer"
            )
            _say(COMMANDS)
            Session(conversation.Conversation(speaker), alphas, best).run()
    return 0


class Session:
    """A chat, line by line. Answers at alpha `best` are marked as those of the chosen alpha."""

    def __init__(self, conversation: "Conversation", alphas: tuple[str, str], best: str | None):
        self.conversation, self.alphas, self.best = conversation, alphas, best
        self.typed = sys.stdin.isatty() and sys.stdout.isatty()

    def run(self) -> None:
        """Answer lines until the input ends or a line ends the chat.

        At a terminal an error is printed and the chat goes on; otherwise it is raised.
        """
        for line in self._lines():
            try:
                if line.startswith("/"):
                    if line.split() == ["/quit"]:
                        return
                    self._obey(line)
                elif question := line.strip():
                    self._ask(question)
            except (ConfigError, DataError) as error:
                if not self.typed:
                    raise
                _say(str(error))

    def _lines(self) -> Iterator[str]:
        """Yield the lines of standard input. Lines that were not typed are printed again."""
        if self.typed:
            with suppress(ImportError):
                import readline  # noqa: F401 (for editing and recalling lines; no history file is kept)
        while True:
            try:
                line = input("> " if self.typed else "")
                line.encode()
            except UnicodeError:  # from decoding, or from encode() if the locale let odd bytes pass
                raise DataError("standard input is not UTF-8; save the questions as UTF-8") from None
            except (EOFError, KeyboardInterrupt) as end:
                if self.typed:
                    print()
                if isinstance(end, EOFError):
                    return
                raise
            if not self.typed:
                print(f"> {shown(line)}")
            yield line

    def _obey(self, line: str) -> None:
        match line.split(maxsplit=1):
            case ["/new"]:
                self.conversation.begin()
                _say("a new conversation")
            case ["/alpha", text]:
                self._move(text)
            case _:
                raise ConfigError(
                    [
                        f"{line!r} is not a command; {COMMANDS}; a question that begins with / needs a space before it"
                    ]
                )

    def _move(self, text: str) -> None:
        """Change the alphas, and answer the last question at the new ones."""
        try:
            self.alphas = two_alphas(text if "," in text else f"{self.alphas[0]},{text}")
        except argparse.ArgumentTypeError as error:
            raise ConfigError([f"/alpha: {error}"]) from None
        _say(f"alpha {self.alphas[0]} and {self.alphas[1]} answer")
        if self.conversation:
            self._show()

    def _ask(self, question: str) -> None:
        self.conversation.ask(question)
        try:
            self._show()
        except DataError:
            self.conversation.withdraw()
            raise

    def _show(self) -> None:
        """Print both answers to the last question, indented to distinguish them from our lines."""
        for alpha in self.alphas:
            with _counting(alpha) as told:
                said = self.conversation.answer(alpha, told)
            name = "chosen" if alpha == self.best else NAMES.get(alpha)
            ended = "length: cut off" if said.finish_reason == "length" else said.finish_reason
            tokens = f"{said.tokens} token{'' if said.tokens == 1 else 's'}"
            print(f"alpha {alpha}{f' ({name})' if name else ''}: {tokens}, {ended}")
            print(textwrap.indent(shown(said.text), "  ", lambda line: True), end="\n\n", flush=True)


@contextmanager
def _counting(alpha: str) -> "Iterator[Counted]":
    """Yield a function that shows, at a terminal, the answering alpha and its token count.

    The line is overwritten each time and removed at the end.
    """
    if not sys.stderr.isatty():
        yield lambda tokens: None
        return
    due, width = 0.0, 0

    def told(tokens: int) -> None:
        nonlocal due, width
        if (now := time.monotonic()) >= due:
            text = f"alpha {alpha} answers" + (f": {tokens} tokens" if tokens else "")
            due, width = now + PAUSE, max(width, len(text) + len("^C"))
            print(f"\r{text:{width}}", end="", file=sys.stderr, flush=True)

    told(0)
    try:
        yield told
    finally:
        print(f"\r{'':{width}}\r", end="", file=sys.stderr, flush=True)


def _say(line: str) -> None:
    print(f"expoflow: {line}", file=sys.stderr, flush=True)
