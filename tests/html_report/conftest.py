"""A browser to look at reports with, and the mark of tests that need it."""

import chromium
import pytest


def pytest_configure(config):
    config.addinivalue_line('markers', 'browser: needs Chromium, is skipped without it')


@pytest.fixture(scope='session')
def browser(tmp_path_factory):
    if not chromium.find():
        pytest.skip('no Chromium on this machine; install it, or name it in the variable CHROMIUM')
    browser = chromium.Chromium(tmp_path_factory.mktemp('profile'))
    yield browser
    browser.close()
