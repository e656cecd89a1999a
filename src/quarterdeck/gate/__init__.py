"""One door for every proposal.

The gate turns what a model wrote into a :class:`~quarterdeck.core.proposal.Proposal`, gathers the facts that it is judged by (run
state, switches, manifest, policy verdict, approval), lets the core's pure rules decide, and returns the decision with its part of
a commit: the slices of shared accounts that it needs and the approval that it uses up. It never writes and never performs anything;
whoever commits its answer under other versions of the facts is refused by the store and has to ask again.
"""
