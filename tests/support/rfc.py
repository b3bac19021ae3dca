"""A plugin: `pytest --rfc` prints the sections of RFCs that tests are marked with, each with its tests."""

from collections import defaultdict

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rfc", action="store_true", help="list the sections of RFCs with the tests that hold them")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if config.option.rfc:
        config.option.collectonly, config.option.markexpr = True, "rfc"


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.option.rfc:
        config.pluginmanager.unregister(name="terminalreporter")


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.rfc:
        sections: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
        for item in session.items:
            for mark in item.iter_markers("rfc"):
                number, section = mark.args
                sections[int(number), section].add(item.nodeid.partition("[")[0])
        for (number, section), tests in sorted(sections.items()):
            print(f"RFC {number} §{section}", *sorted(tests), sep="\n    ")
