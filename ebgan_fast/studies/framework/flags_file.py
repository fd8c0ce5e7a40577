"""A study's flags from a YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from ..._console import shortened, shown
from ..._files import content_of

# The parser takes half a second for a file of _LARGEST bytes, and a tenth of a second for _MOST_BRACKETS brackets that
# aren't closed. A file with all flags of a study has 1 kB.
_LARGEST, _MOST_BRACKETS = 1 << 14, 1000
_MOST_VALUES, _LONGEST_VALUE = 10_000, 1000  # values and characters; an alias repeats a list in few characters
_NAME = re.compile("[A-Za-z0-9_-]{1,40}")
_NO_SETTINGS = "help", "file"  # flags that aren't settings: with them a study would end without a trial
_RESOLVER = yaml.resolver.BaseResolver
_EXAMPLE = "expected lines such as size_g: [400, 800]"


def with_file(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the flags of the YAML file that --file names. Flags of the command line override these.

    Args:
        arguments: the arguments of the command line.

    Raises:
        ValueError: the file holds something else than one value or list for each flag. The message names the file.
        OSError: the file can't be read. The error names it.
    """
    given = [part for one in arguments for part in _apart(one)]
    if given[-1:] == ["--file"]:
        raise ValueError("--file: got no value, expected the path of a YAML file")
    if "--file" not in given:
        return given

    place = given.index("--file")
    path = Path(given[place + 1])
    content = content_of(path, _LARGEST)
    try:
        flags = list(_flags(content))
    except RecursionError as error:
        raise ValueError(f"{path}: got too many levels, {_EXAMPLE}") from error
    except yaml.YAMLError as error:
        reason = shortened(" ".join(str(error).split()))
        raise ValueError(f"{path}: got {reason}, expected YAML") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return [*given[:1], *flags, *given[1:place], *given[place + 2 :]]


def _apart(argument: str) -> list[str]:
    """Return the two arguments that --file=grid.yaml stands for. Return any other argument alone."""
    name, sign, value = argument.partition("=")
    return [name, value] if sign and name == "--file" else [argument]


def _flags(content: bytes) -> Iterator[str]:
    """Yield each flag of a file, and then the flag's values.

    The structure of the file is checked before any value is built: nested aliases of lists, and mappings merged into
    one another, can grow without end.

    Raises:
        ValueError: the file has another structure, or a value that YAML can't build.
        yaml.YAMLError: the file isn't YAML.
    """
    text = _decoded(content)
    if text.count("[") + text.count("{") > _MOST_BRACKETS:
        raise ValueError(f"got more than {_MOST_BRACKETS:,} brackets, {_EXAMPLE}")
    loader = yaml.SafeLoader(text)
    try:
        document = loader.get_single_node()
        if document is None:
            raise ValueError(f"got an empty file, {_EXAMPLE}")
        if not (isinstance(document, yaml.MappingNode) and _is_plain(document)):
            raise ValueError(f"got {_kind(document)}, {_EXAMPLE}")
        named: dict[str, list[yaml.ScalarNode]] = {}
        for key, value in document.value:
            name = _name(key)
            if name in named:
                raise ValueError(f"{name}: got it twice, expected each name once")
            named[name] = _values(name, value)
        if sum(map(len, named.values())) > _MOST_VALUES:
            raise ValueError(f"got more than {_MOST_VALUES:,} values, {_EXAMPLE}")
        for name, nodes in named.items():
            yield f"--{name.replace('_', '-')}"
            for node in nodes:
                yield _made(loader, name, node)
    finally:
        loader.dispose()


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"got byte {error.start + 1} that isn't UTF-8, expected YAML in UTF-8") from error


def _name(node: yaml.Node) -> str:
    name = node.value if isinstance(node, yaml.ScalarNode) else _kind(node)
    if not _NAME.fullmatch(name) or name in _NO_SETTINGS:
        raise ValueError(f"got {shown(name)} for a name, {_EXAMPLE}")
    return str(name)


def _values(name: str, node: yaml.Node) -> list[yaml.ScalarNode]:
    """Return the nodes of a value: the value itself, or the items of a list."""
    is_list = isinstance(node, yaml.SequenceNode) and _is_plain(node)
    nodes = node.value if is_list else [node]
    for one in nodes:
        if not isinstance(one, yaml.ScalarNode):
            within = " in a list" if is_list else ""
            raise ValueError(f"{name}: got {_kind(one)}{within}, expected one value or a list of them")
    return list(nodes)


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "a single value"
    kind = "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
    return kind if _is_plain(node) else f"{kind} of tag {shown(node.tag)}"


def _is_plain(node: yaml.Node) -> bool:
    """Return True for a node with YAML's own tag for a list or a mapping. Another tag makes something else of it."""
    return node.tag in (_RESOLVER.DEFAULT_SEQUENCE_TAG, _RESOLVER.DEFAULT_MAPPING_TAG)


def _made(loader: yaml.SafeLoader, name: str, node: yaml.ScalarNode) -> str:
    """Return the argument for a value."""
    try:
        text = str(loader.construct_object(node))
    # A month 13 raises a ValueError, !!bool of an unknown word a KeyError, and !!timestamp of a word an AttributeError.
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise ValueError(f"{name}: got {shortened(node.value, 60)}, expected a value that YAML can make") from error
    if len(text) > _LONGEST_VALUE:
        raise ValueError(f"{name}: got a value of {len(text):,} characters, expected at most {_LONGEST_VALUE:,}")
    return text
