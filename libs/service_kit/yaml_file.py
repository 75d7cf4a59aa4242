"""A YAML file, with the environment's values put in for `${NAME}`.

A mistake is told with its place, and never with the text that stands there, which may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

Loc = tuple[str | int, ...]
"""The keys and indices that lead to a value."""

_REFERENCE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_MISSPELT = re.compile(r".*\$\{.*|\s*\$[A-Z][A-Z0-9_]*\s*", re.DOTALL)
"""A misspelt reference would itself become the password, and anybody could read it."""

_QUOTES = "a value that begins with a special character needs quotes"
_WORDS: dict[type[yaml.YAMLError], str] = {
    ComposerError: f"an alias (*) of nothing, an anchor (&) that is there twice, or a second document; {_QUOTES}",
    ConstructorError: f"a tag (!) or value that can't be read; {_QUOTES}",
    ReaderError: "a character that YAML does not allow",
}


class ConfigFileError(Exception):
    """The file can't be used; the text has a line per mistake: `file:line: field: reason`."""


class YamlFile:
    """`values` is what the file says; `problems` are to be told beside those that the values have."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        """Raises ConfigFileError for a file of which nothing can be made."""
        self.problems: list[str] = []
        self._path = path
        text = _read(path)
        try:
            loader = _Loader(text)
            self._node = loader.get_single_node()
            self._fill(self._node, (), environment, set())
            self.values: Any = None if self._node is None else loader.construct_document(self._node)  # pyright: ignore[reportUnknownMemberType]
        except yaml.YAMLError as error:
            words = _WORDS.get(type(error), f"not YAML from here on; {_QUOTES}")
            raise ConfigFileError(f"{path}:{_place(error, text)}: {words}") from None
        except RecursionError:
            raise ConfigFileError(f"{path}:1: nested too deeply") from None

    def at(self, loc: Loc, words: str, *, missing: bool = False) -> str:
        """`file:line: field: reason`; the line of the nearest part of the file that the mistake is in.

        A step that the file does not have (a union's branch, say) is left out, unless it is the last and the mistake is that it is
        `missing`.
        """
        node, shown = self._node, list[str | int]()
        for step in loc:
            if (child := _child(node, step)) is not None:
                node = child
                shown.append(step)
        return self._told(node, (*shown, loc[-1]) if missing else shown, words)

    def _told(self, node: yaml.Node | None, loc: Sequence[str | int], words: str) -> str:
        """Of a name only what precedes a colon: where a space was forgotten (`password:secret`), a value stands behind it."""
        field = ".".join(str(step).partition(":")[0] for step in loc)
        return f"{self._path}:{_line(node)}: {field + ': ' if field else ''}{words}"

    def _fill(self, node: yaml.Node | None, loc: Loc, environment: Mapping[str, str], filled: set[int]) -> None:
        """Put in the environment's values, in each node once, since an alias is the node itself. Repeated keys are problems too."""
        if node is None or id(node) in filled:
            return
        filled.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = set[str]()
            for key, value in _pairs(node):
                if key.value in keys:
                    self.problems.append(self._told(key, (*loc, key.value), "is there twice"))
                keys.add(key.value)
                self._fill(value, (*loc, key.value), environment, filled)
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(cast(list[yaml.Node], node.value)):
                self._fill(value, (*loc, i), environment, filled)
        elif reference := _REFERENCE.fullmatch(node.value):
            if reference[1] in environment:
                node.value = environment[reference[1]]
            else:
                self.problems.append(self._told(node, loc, f"the environment has no {reference[1]}"))
        elif _MISSPELT.fullmatch(node.value):
            words = "a reference to the environment is the whole value, with its name in capitals: ${NAME}"
            self.problems.append(self._told(node, loc, words))


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As ever, but what is no date or number although it looks like one (`2026-13-45`) is told with its place."""
        try:
            return super().construct_object(node, deep)  # pyright: ignore[reportUnknownMemberType]
        except (ValueError, LookupError, AttributeError):
            raise ConstructorError(problem_mark=node.start_mark) from None


def _read(path: Path) -> str:
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise ConfigFileError(f"{path}: {error.strerror}") from None
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise ConfigFileError(f"{path}:{line}: not UTF-8") from None


def _place(error: yaml.YAMLError, text: str) -> str:
    if isinstance(error, ReaderError):
        return str(text.count("\n", 0, error.position) + 1)
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return f"{mark.line + 1}:{mark.column + 1}" if mark else "1"


def _child(node: yaml.Node | None, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return {key.value: value for key, value in _pairs(node)}.get(str(step))
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step]
    return None


def _pairs(node: yaml.MappingNode) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Without those whose key is no plain name: the loader refuses them, with their place."""
    return [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]


def _line(node: yaml.Node | None) -> int:
    return node.start_mark.line + 1 if node is not None and node.start_mark is not None else 1
