import pytest

pytest.register_assert_rewrite("helpers")


def pytest_configure(config):
    """Whoever runs tests takes the fixtures; a process that hands them out needs no PyTorch."""
    if not config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        config.pluginmanager.import_plugin("helpers.fixtures")
