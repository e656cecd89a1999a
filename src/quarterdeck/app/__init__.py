"""The composition root: where authored parts become a running whole.

``deck`` is what an author writes against, ``runtime`` what runs; only here do adapters, gate, engine and dispatch meet. This room
connects and translates. It decides nothing that the core could decide.

``orders`` is the one form of everything that people ask of a store, whichever process asks; it bounds what they say before it becomes a
row. ``lookout`` notices what other processes do to runs that somebody here waits for. Nothing here may know a door.
"""
