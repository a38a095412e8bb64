"""One fuzzing process for all formats, and a table of what it found at the end of the tests' output."""

import pytest
from fuzz import driver

FOUND = []


@pytest.fixture(scope='session')
def server():
    started = driver.Server()
    yield started
    started.close()


@pytest.fixture
def fuzz(server):
    """`fuzz(format, files, seed)`: the summary, which goes into the table too."""

    def run(name, files, seed):
        FOUND.append(server.run(name, seed, 0, files))
        return FOUND[-1]

    return run


def pytest_terminal_summary(terminalreporter):
    if FOUND:
        terminalreporter.section('damaged files')
        terminalreporter.write_line(driver.table(FOUND))
