"""Living with what fails: the room between the engine and every model and tool.

An agent makes many calls for one request, so the small weaknesses of its dependencies multiply: a slow upstream becomes
a queue, a hiccup becomes a storm of retries, one stuck tool becomes a stuck process. This room does not try until every
call succeeds; it protects the whole.

Each model and tool is one :class:`~quarterdeck.resilience.dependency.Dependency` with its own policy, shared by all
runs of the process and visible to operators: bulkhead, rate limit, breaker, time-out, classified retry under a budget,
figures. The rules are pure machines in the core (``retry``, ``breaker``, ``limits``, ``dependency``); here they meet a
clock, chance and asyncio.

It promises:

* a slot, a turn and a probe are never lost, whatever is cancelled whenever;
* old news changes nothing: an outcome from before the breaker moved cannot move it;
* a permanent error is never retried, a retry never outlives the deadline, and an outage costs a bounded number of
  retries;
* retries happen here and in no other layer, so that amplification is the product of one number;
* a call that nothing holds up costs a few microseconds and no timer.

It must never: decide whether a call is allowed (the gate did), choose another model or tool (a fallback is a new
proposal), write anything down (the engine does), or hide an error's cause.

The engine's way through it: ``permit = dep.try_acquire() or await dep.acquire(deadline_s)`` before the commit, so that
nothing waits between commit and doing; then ``await dep.run(attempt, permit=permit, ...)``, or ``dep.release(permit)``
where the commit was refused.
"""
