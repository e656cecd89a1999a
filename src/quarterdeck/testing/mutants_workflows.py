"""Bugs on purpose in workflows: their replay, their sagas and their children. The tests of workflows have to notice each of them."""

from __future__ import annotations

from quarterdeck.testing.mutants_runtime import RuntimeMutant, mutant

_PLAY = "engine.workflows.play:Play"
_SAGA = "engine.workflows.saga:Saga"
_RECORDING = "engine.workflows.recording:Recording"

WORKFLOW_MUTANTS: tuple[RuntimeMutant, ...] = (
    mutant(
        "answers are delivered out of order", 9, "replay",
        (f"{_RECORDING}._answered", "self.arrivals.append((event, payload))",
         "self.arrivals.append((event, payload)) if self._live else self.arrivals.appendleft((event, payload))"),
    ),
    mutant(
        "a divergence is ignored", 9, "replay",
        (f"{_PLAY}._issue", "if (recorded.call, recorded.step, recorded.digest, recorded.undoes) !=",
         "if False and (recorded.call, recorded.step, recorded.digest, recorded.undoes) !="),
    ),
    mutant(
        "a recorded step that is not asked for again is overlooked", 9, "replay",
        (f"{_PLAY}.require_all", "if self.recording.proposals and self.diverged is None:", "if False:"),
        (f"{_PLAY}.tell", "if found is None:", "if found is None and self.ended:\n        return\n    if found is None:"),
    ),
    mutant(
        "an answer is delivered before it is durable", 5, "I2",
        ("engine.workflows.driving:_Driver._perform", "self.uncertain.add(call)", "pass"),
        ("engine.acting:perform", "await held.sequencer.flush()", "pass"),
        rare=True,
    ),
    mutant(
        "steps are performed before everything recorded was delivered", 9, "I2",
        ("engine.workflows.driving:_Driver._deliver", "while self.recording.arrivals and",
         "while not told and self.recording.arrivals and"),
        ("engine.workflows.driving:_Driver.round", "if not recording.arrivals:\n        play.require_all()",
         "if False:\n        pass"),
    ),
    mutant(
        "a compensation is repeated", 10, "I10",
        (f"{_SAGA}.__aexit__", "await self._undo(self._done.pop())",
         "await self._undo(self._done[-1])\n        await self._undo(self._done.pop())"),
    ),
    mutant("the oldest is undone first", 10, "I10", (f"{_SAGA}.__aexit__", "self._done.pop()", "self._done.pop(0)")),
    mutant("what cannot be undone is passed over", 10, "I10", (f"{_SAGA}._undo", 'if told == "done":', "if True:")),
    mutant("an inner saga forgets", 10, "I10", (f"{_SAGA}.__aexit__", "sagas[-1]._done.extend(self._done)", "pass")),
    mutant(
        "a cancel stands against undoing", 10, "I10", ("core.judge:revoked", "if undoes:", "if False:"),
    ),
    mutant(
        "a child's result is lost", 1, "children",
        ("engine.workflows.children:_end", "stored.payload if stored.payload is not None else", "True and"),
    ),
    mutant(
        "a cancel stays with the parent", 1, "I9",
        ("engine.workflows.children:look_after", "if cancel:", "if False:"),
        ("app.orders:Orders._descendants", "if one.parent_run_id in known:", "if False:"),
    ),
    mutant(
        "children spend without limit", 8, "I3",
        ("core.fold:_child_ended", "if dimension in CHILD_SPENDING:", "if False:"),
        ("core.fold:_child_opened", "for dimension, amount in event.share.items():", "for dimension, amount in ():"),
    ),
    mutant(
        "a message is taken twice", 1, "signals", (f"{_RECORDING}._answered", "waiting.popleft()", "pass"),
    ),
    mutant(
        "a foreign await is let through", 9, "replay",
        ("engine.workflows.strands:Strands._take", 'raise foreign(f"it awaited {type(asked).__name__}")',
         "self._ready.append((strand, None, None))"),
    ),
    mutant(
        "a hook is called although the cancel drains", 10, "E8",
        ("core.loop:_on_cancel", "if state.started and state.cancel_mode is not CancelMode.DRAIN:", "if state.started:"),
    ),
    mutant("what was started goes on", 10, "E8", ("core.fold:_tool_closed", "if effect.cancellable and", "if False and")),
    mutant(
        "a fresh history forgets what came", 9, "generations",
        ("engine.workflows.recording:Recording.leaving", "for name, waiting in self.signals.items() if waiting", "for name, waiting in ()"),
    ),
    mutant(
        "a fresh history uses the old keys", 2, "generations",
        ("engine.workflows.play:Play.begin", 'f"g{generation}/" if generation else ""', '""'),
    ),
    mutant("a fork undoes what its source did", 10, "forks",
           ("engine.workflows.driving:_Driver._begin_steps", "if step.undoes in state.inherited:", "if False:")),
    mutant("an interrupt waits until the wait is over", 1, "E8",
           ("engine.workflows.waiting:look", "if raises and recording.interrupts and", "if False and")),
)  # fmt: skip
"""Every planted bug of workflows."""
