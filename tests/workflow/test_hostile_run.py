"""Hostile prompts, labels, captions and folders through the whole workflow: texts stay texts, files stay in place."""

import csv
import json
import re
import shutil
import zipfile
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from tree import Tree, new_tree

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.whole]
FOLDER = 'it\'s $(touch owned); & "b" `touch owned`'
SCRIPT = "</script><script>alert('owned')</script>"
PROMPTS = [
    "\x1b]0;owned\x07\x1b[2Jred\r\x9b31m\u202etxt",
    "a\u2028b\u2029c\x85d\x0b\x0c\x1c\x00e",
    f"{SCRIPT}<img src=x onerror=alert(1)>",
    "{pair} {wildcards.pair} {{ config }} {% raw %} %s $(touch owned) `touch owned`",
    "=cmd|' /C calc'!A0",
    "x" * 20_000,
]
LABEL = rf"$\frac{{1}}{{{SCRIPT} & \x {{pair}}"
CAPTION = f"""{SCRIPT} {{pair}} {{{{ snakemake.config }}}} `link <javascript:alert(1)>`_ *a* |b| c_

.. raw:: html

   <b id="owned">raw</b>

.. include:: /etc/passwd
"""


class Page(HTMLParser):
    """What a browser would see: elements, their attributes, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.attributes += attributes

    def handle_data(self, text):
        self.text += text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Tree:
    """A finished run in a folder that a shell would take for commands; everything that it may write is below root."""
    root = tmp_path_factory.mktemp("hostile")
    tree = new_tree(root / FOLDER, root / "store")
    tree.root = root
    for name, end in {"dev": "", "test": " once more"}.items():  # no prompt may be in both
        lines = [json.dumps({"prompt": prompt + end}, ensure_ascii=False) for prompt in PROMPTS]
        (tree.folder / f"my {name} $(touch owned).jsonl").write_text("\n".join(lines), encoding="utf-8")
    prompts = {name: {"file": f"my {name} $(touch owned).jsonl"} for name in ("dev", "test")}
    figures = {
        "sweep": {"kind": "sweep", "labels": {"tiny": LABEL}, "caption": CAPTION},
        "curves": {"kind": "curves", "groups": {LABEL: ["tiny"]}, "labels": {"tiny": LABEL}},
        "histograms": {"kind": "histograms", "labels": {"tiny": LABEL}},
        "bars": {"kind": "bars", "metrics": ["reward.reward"], "labels": {"tiny": LABEL}},
    }
    tree.edit(lambda config: config.update(prompts=prompts, figures=figures))
    tree.edit(lambda config: config["generate"].update(too_long="truncate"))
    tree.edit(lambda config: config["pairs"]["tiny"].update(alphas=[1]))
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
            (root / variable).mkdir()
            patch.setenv(variable, str(root / variable))
        tree.output = tree.snakemake("--cores", "2")
    return tree


def test_nothing_is_written_outside_of_results_and_store_and_no_shell_was_asked(hostile):
    there = {path.name for path in hostile.root.iterdir()}
    assert there == {FOLDER, "store", "HOME", "XDG_CACHE_HOME", "TMPDIR"}
    ours = {"config.yaml", "dev.jsonl", *(f"my {name} $(touch owned).jsonl" for name in ("dev", "test"))}
    assert {path.name for path in hostile.folder.iterdir()} == ours | {"results", ".snakemake"}
    assert list(hostile.root.rglob("owned")) == []


def test_prompts_reach_every_stage_as_they_are(hostile):
    lines = hostile.read("prompts/dev.jsonl").decode().rstrip("\n").split("\n")
    assert [json.loads(line)["messages"][0]["content"] for line in lines] == PROMPTS
    for name in (
        "pairs/tiny/alpha=1/dev.generations.jsonl",
        "pairs/tiny/benchmarks/expo/reward.generations.jsonl",
    ):
        assert len(hostile.read(name).decode().rstrip("\n").split("\n")) == len(PROMPTS)


def test_the_terminal_shows_texts_and_obeys_none(hostile):
    assert all(line.isprintable() for line in re.split(r"[\n\t]", hostile.output))
    assert "tiny: best alpha" in hostile.output


def test_no_cell_of_a_table_is_a_formula(hostile):
    tables = list(hostile.folder.glob("results/**/*.csv"))
    assert len(tables) > 6
    for table in tables:
        with open(table, encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if re.match(r"[=+@\t\r]|-(?![\d.e-]+$)", cell)]


@pytest.mark.parametrize("figure", ["sweep", "curves", "histograms", "bars"])
def test_labels_are_texts_in_figures(hostile, figure):
    picture = ElementTree.fromstring(hostile.read(f"figures/{figure}.svg"))
    assert not [element for element in picture.iter() if element.tag.endswith("script")]
    assert LABEL in "".join(picture.itertext())
    assert hostile.read(f"figures/{figure}.png").startswith(b"\x89PNG")


def test_the_page_has_captions_as_texts(hostile):
    page = Page(hostile.read("report.html").decode())
    assert page.elements.count("script") == 3  # data, library, own
    assert "b" not in page.elements
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert ("id", "owned") not in page.attributes
    assert CAPTION in page.text


def test_snakemakes_report_has_captions_as_texts(hostile, tmp_path):
    hostile.snakemake("--report", str(tmp_path / "report.zip"))
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        (page,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".html")]
    assert "&lt;script&gt;alert" in page  # the caption is there
    assert "root:x:" not in page
    assert SCRIPT not in page
    assert "<b id=" not in page
    assert not re.search(r'href=\\*"javascript:', page)


def test_a_checkpoint_lies_in_a_folder_of_any_name(hostile):
    shutil.copytree(hostile.folder / "results/models/dpo", hostile.folder / f"my {FOLDER}")
    hostile.edit(lambda config: config["models"].update(mine={"path": f"my {FOLDER}"}))
    hostile.snakemake("--cores", "1", "results/models/mine.json")
    assert json.loads(hostile.read("models/mine.json"))["folder"] == f"my {FOLDER}"
    assert list(hostile.root.rglob("owned")) == []


CONFIGS = {
    "a tag that runs": "models: !!python/object/apply:os.system [touch owned]\n",
    "many lists": "\n".join(
        [
            "a0: &a0 [1]",
            *(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(30)),
            "models: *a30",
            "",
        ]
    ),
    "a template": "__use_yte__: true\nmodels: {}\n",
    "keys with control characters": '"\\e[2J\\n": 1\n',
}


@pytest.mark.parametrize("case", CONFIGS)
def test_snakemake_itself_refuses_a_hostile_config(tmp_path, case):
    tree = new_tree(tmp_path / "tree", tmp_path / "store")
    (tree.folder / "config.yaml").write_text(CONFIGS[case])
    output = tree.snakemake("--cores", "1", check=False, timeout=240)
    assert all(line.isprintable() for line in re.split(r"[\n\t]", output))
    assert list(tmp_path.rglob("owned")) == []
    assert not (tree.folder / "results").exists()
