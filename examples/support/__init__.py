"""A support desk run by agents: the example that shows the whole of Quarterdeck at work, accidents included.

Read ``deck.py`` first: it declares tools, model, policies, budgets, agent and route, and is all that an author writes. ``shop.py`` is
the outside world (a shop in a SQLite file, with its own refund ledger), ``scripted.py`` what a misbehaving model would propose.
The rest performs it: ``stage`` has the service (``quarterdeck serve``) in a process that can be killed, ``sending`` and ``watching`` are a
client of it over HTTP, ``people`` have keys and decide, ``reckoning`` compares the shop's books with the ``journals``, ``demo`` tells the
story, ``doors`` says how to go on.
"""
