r"""LaTeX output: escaped text from outside, and tables of the package booktabs.

The output is ASCII, so pdfLaTeX, XeLaTeX and LuaLaTeX can read it with any fonts and encodings.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from expoflow.errors import shown

MATHEMATICS = (
    "α alpha β beta γ gamma δ delta ε epsilon ζ zeta η eta θ theta ι iota κ kappa λ lambda μ mu ν nu ξ xi π pi ρ rho σ sigma τ tau"
    " υ upsilon φ phi χ chi ψ psi ω omega Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi Σ Sigma Υ Upsilon Φ Phi Ψ Psi Ω Omega"
    " ± pm × times · cdot ≤ le ≥ ge ≈ approx → to"
)
SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # babel makes it a command in some languages
    "[": "{[}",  # after the end of a row it would start an argument, as would the star
    "*": "{*}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"$\\{name}$" for sign, name in re.findall(r"(\S) (\w+)", MATHEMATICS)},
    "−": "$-$",
    "†": r"$^{\dagger}$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\ldots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
}
ACCENTS = dict(
    zip(
        "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327",
        "`'^~=u.\"rHvc",
        strict=True,
    )
)
# Shrinks a table that is wider than the text to the width of the text.
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
MINUS = re.compile(r"(?<![\w.])-(?=\d)")  # before a number, not in a name


def latex(text: str) -> str:
    """`text` as words in LaTeX: one line, no commands, a minus before a number.

    A character without a LaTeX command is replaced by its code point, such as [U+4E2D].
    """
    words = MINUS.sub("−", shown(" ".join(text.split())))
    return re.sub("-(?=-)", "-{}", "".join(map(_letter, words)))  # two hyphens would become a dash


def strong(text: str) -> str:
    """`text`, which is LaTeX already, in bold."""
    return rf"\textbf{{{text}}}"


def latex_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    columns: str,
    caption: str,
    label: str,
    note: str = "",
) -> str:
    r"""A floating table in the style of booktabs, to be `\input`. `note` is printed below it.

    All texts must be LaTeX already. `columns` has an l (left) or r (right) for each column.
    """
    lines = [
        r"% needs \usepackage{booktabs,graphicx} in the preamble",
        r"\begin{table}[htbp]",
        r"\centering\small",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}}}",
        FIT,
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row(header),
        r"\midrule",
        *map(_row, rows),
        r"\bottomrule",
        r"\end{tabular}}",
        *([r"\par\smallskip", rf"{{\footnotesize {note}\par}}"] if note else []),
        r"\end{table}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _row(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _letter(letter: str) -> str:
    if letter in SIGNS:
        return SIGNS[letter]
    if letter.isascii():
        return letter
    base, accent, *more = (*unicodedata.normalize("NFD", letter), "", "")
    if base.isascii() and accent in ACCENTS and not any(more):
        return rf"\{ACCENTS[accent]}{{{base}}}"
    return f"{{[}}U+{ord(letter):04X}]"
