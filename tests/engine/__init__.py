"""Tests of one run's way through the engine, on a real store."""
