"""Where journals live: the only rooms that hold SQL.

Each store applies :class:`~quarterdeck.core.commit.Op` values under the append contract and answers reads. No business rule is in
here: a store compares what it is told to compare, changes what it is told to change, and names the guard that refused.
"""
