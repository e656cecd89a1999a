"""The embedded store: one SQLite file, one owner, one writer that commits in groups.

The owner process holds a lock on the file and starts one *writer*, a child process that applies operations in batches, each batch
one transaction and one sync (WAL, ``synchronous=FULL``; anything weaker is refused). The writer is a process of its own so that it
shares neither the interpreter lock nor the fate of the event loop; when the owner is killed, it finishes the batch it has, and
ends. When the writer is killed, the owner starts another and sends again what was not answered: an append is idempotent.

Reads go through a connection of their own. Other processes may read at any time and may put rows into inboxes (see
:mod:`~quarterdeck.store.sqlite.visitor`); they can never append to a journal.
"""
