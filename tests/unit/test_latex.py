"""Texts and tables in LaTeX: escaped, ASCII, and whole."""

import re
import string

import pytest
from expoflow.files.latex import latex, latex_table, strong
from expoflow.reporting.printed_table import Mark, Table, files, write_table


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("R&D 50% $5 #1 a_b", r"R\&D 50\% \$5 \#1 a\_b"),
        ("{x} ~ ^ \\", r"\{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}"),
        ("\\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ('<b> | ` "', r"\textless{}b\textgreater{} \textbar{} \textasciigrave{} ''"),
        ("Optimal α ≥ 0, θ −1 †", r"Optimal $\alpha$ $\ge$ 0, $\theta$ $-$1 $^{\dagger}$"),
        ("Zürich, naïve, Łódź", r"Z\"{u}rich, na\"{i}ve, \L{}\'{o}d\'{z}"),
        ("模型", "{[}U+6A21]{[}U+578B]"),
        ("-0.3 (-1.2%) zephyr-7b llama-3.1-8b", r"$-$0.3 ($-$1.2\%) zephyr-7b llama-3.1-8b"),
        ("a--b---c", "a-{}-b-{}-{}-c"),
        ("two\nlines\t\x1b", r"two lines \textbackslash{}x1b"),
        ("[0.1, 0.2] *", "{[}0.1, 0.2] {*}"),  # behind the end of a row both would be its arguments
    ],
)
def test_texts_stay_texts(text, written):
    assert latex(text) == written


def test_no_sign_leaves_ascii_or_begins_something():
    for sign in {*string.printable, *map(chr, range(0x80, 0x500)), "模", "†", "😀"}:
        written = latex(f"a{sign}b")
        assert written.isascii(), sign
        plain = re.sub(r"\\[a-zA-Z]+|\\.", "", re.sub(r"\$[^$]*\$", "", written.replace(r"\$", "")))
        assert not set("&%#_~^$\\") & set(plain), sign
        assert plain.count("{") == plain.count("}"), sign


TABLE = Table(
    ("", "A & B", "C_1"),
    (("10%_model", "1.0 (+0.5)", "-"), ("[other]", "-2.0 (-0.5)", "3.0 (+1.0)")),
    {(0, 1): Mark.BOLD_VALUE, (0, 2): Mark.BOLD, (1, 1): Mark.DAGGER, (1, 2): Mark.BOLD},
    caption="100% of α.",
    note="Bold: so. †: so, too.",
)


def test_a_table_is_printed_in_latex_as_in_markdown():
    assert TABLE.markdown().splitlines() == [
        "|  | A & B | C_1 |",
        "| --- | ---: | ---: |",
        "| 10%_model | **1.0** (+0.5) | - |",
        "| [other] | -2.0 (-0.5)† | **3.0 (+1.0)** |",
        "",
        "100% of α. Bold: so. †: so, too.",
    ]
    assert TABLE.latex("mine").splitlines() == [
        r"% needs \usepackage{booktabs,graphicx} in the preamble",
        r"\begin{table}[htbp]",
        r"\centering\small",
        r"\caption{100\% of $\alpha$.}",
        r"\label{tab:mine}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & A \& B & C\_1 \\",
        r"\midrule",
        r"10\%\_model & \textbf{1.0} (+0.5) & -- \\",
        r"{[}other] & $-$2.0 ($-$0.5)$^{\dagger}$ & \textbf{3.0 (+1.0)} \\",
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\smallskip",
        r"{\footnotesize Bold: so. $^{\dagger}$: so, too.\par}",
        r"\end{table}",
    ]


def test_a_table_without_a_note_ends_with_its_last_row():
    text = latex_table(["a"], [[strong("b")]], columns="l", caption="c", label="d")
    assert text.endswith("\\textbf{b} \\\\\n\\bottomrule\n\\end{tabular}}\n\\end{table}\n")


def test_a_table_lies_in_three_files(tmp_path):
    paths = files(tmp_path / "mine.md")
    assert [path.name for path in paths] == ["mine.csv", "mine.md", "mine.tex"]
    for path in paths:
        write_table(path, TABLE, ["name", "value"], [{"name": "a", "value": -2.5}])
    assert paths[0].read_text() == "name,value\na,-2.5\n"
    assert paths[1].read_text() == TABLE.markdown()
    assert r"\label{tab:expoflow-mine}" in paths[2].read_text()
