"""Journals that were recorded once, and have to be read in the same way for ever."""
