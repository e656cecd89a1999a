"""Workflows: ordinary async functions that survive crashes.

A workflow is a function of a :class:`~quarterdeck.engine.workflows.context.Context`. Whatever it asks for through the context is a
*step*: recorded when it is asked for, judged by the same gate as any agent's proposal, performed under the same guards, and recorded
again when it has ended. After a crash, or a wait of a month, the function is executed again from its beginning against what is
recorded; it finds every answer where it was, and goes on behind the last one.

For that to be safe, the same function has to ask for the same steps in the same order. So

* it runs on a small scheduler of its own (:mod:`~quarterdeck.engine.workflows.strands`), in which nothing but recorded answers can
  make it go on: one answer is delivered at a time, in the order of the journal, and the function runs until it is quiet before the
  next one. Awaiting anything else is refused, not tolerated;
* every step that it asks for again is compared with the recorded one, by place, kind, name and arguments; the first difference parks
  the run with both sides shown, before anything is done (:mod:`~quarterdeck.engine.workflows.play`);
* an answer that could not be had again is durable before the function sees it.

What a workflow must never do: act on the outside otherwise than through its context, or look at clocks and dice. What this room must
never do: deliver an answer in another order than the journal's, or perform anything while recorded answers are still to be delivered.
"""
