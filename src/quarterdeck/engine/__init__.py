"""Drives one run, from claim to rest.

A runner holds the lease of one run. It folds the journal, asks the core what comes next, takes each proposal through the gate,
commits the decision with the intent, performs, and records the receipt; then again, until the run waits or ends. Only the
*sequencer* appends. Whatever happens to the process in between, the next holder folds the same journal and goes on from there:
completed steps are not repeated, open intents are handled by their effect class.

The engine never decides what is allowed (the gate does), never retries by itself (room ``resilience`` does), and never delivers a
result before its commit.
"""
