"""The same workload on other systems, without a gate: no policy, no budget, no digest; only durable steps."""
