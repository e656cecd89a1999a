"""A loan application as a workflow: what is held is given back when a person says no, and a second person is asked when nobody answers."""
