"""Facts and rules, pure.

Everything that Quarterdeck decides is decided here, by functions of their arguments alone: what a journal means
(:mod:`~quarterdeck.core.fold`), which status may follow which (:mod:`~quarterdeck.core.transitions`), what the gate answers
(:mod:`~quarterdeck.core.judge`), what a loop does next (:mod:`~quarterdeck.core.loop`), what a budget allows
(:mod:`~quarterdeck.core.budget`). Time, randomness and outcomes enter as data.

This room never does I/O, never reads a clock, the environment or a random source, never logs and never awaits; the build breaks
if it tries.
"""
