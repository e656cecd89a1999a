"""The tests: one folder per promise. `tests/conftest.py` keeps them repeatable and away from the network."""
