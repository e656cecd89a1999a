"""The seams: what the engine needs from the outside, as protocols.

A port says what is promised, under crash and concurrency too, in words of the core; adapters (``store``, ``policy``, ``models``,
``tools``) implement it, fakes in ``testing`` implement it as well, and one conformance suite runs over all of them. A port never
does anything itself and has at most fifteen methods.
"""
