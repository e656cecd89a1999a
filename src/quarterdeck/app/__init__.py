"""The composition root: where authored parts become a running whole.

``deck`` is what an author writes against, ``runtime`` what runs; only here do adapters, gate, engine and dispatch meet. This room
connects and translates. It decides nothing that the core could decide.
"""
