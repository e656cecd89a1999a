"""Tools: the code behind manifests.

A typed function becomes a tool: its parameters become a strict JSON Schema, its arguments are checked against them before anything
else sees them, and its result is encoded as JSON. Tools are performed in this process (a profile for development); profiles that
isolate them are adapters beside this one. This room never decides whether a tool may be called.
"""
