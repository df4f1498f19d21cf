"""Check that a config file is plain YAML without repeated keys. Nothing in it is run."""

from collections.abc import Iterable
from pathlib import Path

import yaml

from expoflow.errors import ConfigError

MOST_VALUES = 1_000_000  # Snakemake copies a config value by value
YTE = "__use_yte__"  # makes Snakemake treat the YAML as a template with Python in it


def check_files(files: Iterable[str | Path]) -> None:
    """Raise ConfigError for files that are not plain YAML or have a repeated key. Nothing in them
    is run.

    Snakemake would run the Python in a config that has the key __use_yte__.
    """
    if problems := [problem for file in files for problem in _file_problems(Path(file))]:
        raise ConfigError(problems)


def _file_problems(path: Path) -> list[str]:
    problems = []

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Loader, node: yaml.MappingNode) -> dict:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                problems.append(
                    f"{path}:{key.start_mark.line + 1}: key '{key.value}' occurs twice; rename or remove one"
                )
            seen.add(str(key.value))
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        loader = Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if _values(node, {}) > MOST_VALUES:
            return [f"{path}: references to references stand for over {MOST_VALUES} values; write a config"]
        data = loader.construct_document(node) if node else None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return [f"{path}: not plain YAML ({' '.join(str(error).split())}); correct it"]
    except RecursionError:
        return [f"{path}: lists in lists without end; write a config"]
    if isinstance(data, dict) and YTE in data:
        problems.append(f"{path}: {YTE}: a config is not a program; remove it, and write plain values")
    return problems


def _values(node: yaml.Node | None, known: dict[int, int]) -> int:
    """The number of values below `node`. Referenced values count at every reference, as in a
    copy."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = 1  # for a node that contains itself, which the loader refuses
        pairs = isinstance(node, yaml.MappingNode)
        inner = [each for pair in node.value for each in pair] if pairs else node.value
        known[id(node)] += sum(_values(each, known) for each in inner)
    return known[id(node)]
