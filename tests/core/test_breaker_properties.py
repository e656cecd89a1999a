"""The breaker against a plain model of it, under any sequence of calls, cancellations, late news and pauses."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from quarterdeck.core.breaker import TRANSITIONS, Breaker, BreakerPolicy, BreakerState, CallOutcome, Permit, Rejection

POLICY = BreakerPolicy(failures=3, window_s=20.0, min_calls=6, rate_window_s=60.0, open_s=10.0, probes=2)
UNIT = st.floats(0.0, 1.0)


class BreakerMachine(RuleBasedStateMachine):
    """``out`` holds every permit that was given and not settled, of whatever generation."""

    out = Bundle("out")

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(POLICY)
        self.now_s = 0.0
        self.opened_at_s = 0.0
        self.probes_out: set[Permit] = set()
        self.state_before = BreakerState.CLOSED

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 8.0, 12.0, 70.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(target=out)
    def admit(self) -> object:
        before, out = self.breaker.state, len(self.probes_out)
        answer = self.breaker.admit(self.now_s)
        if isinstance(answer, Rejection):
            assert before in (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.ISOLATED)
            if before is BreakerState.HALF_OPEN:
                # Nobody is refused while no probe is out and none has succeeded: nothing pins it half open.
                assert out > 0 or self.breaker._probes_ok > 0
            return multiple()
        assert before is not BreakerState.ISOLATED
        if before is BreakerState.OPEN:
            assert self.now_s >= self.opened_at_s + POLICY.open_s * (1 - POLICY.open_jitter) - 1e-9
        if self.breaker.state is BreakerState.HALF_OPEN:
            assert answer.probe
            self.probes_out.add(answer)
        else:
            assert not answer.probe
        return answer

    @rule(permit=consumes(out), outcome=st.sampled_from(list(CallOutcome)), luck=UNIT)
    def settle(self, permit: Permit, outcome: CallOutcome, luck: float) -> None:
        before = self.breaker.view(self.now_s)
        current = self.breaker.current(permit)
        self.breaker.settle(permit, outcome, self.now_s, luck)
        after = self.breaker.view(self.now_s)
        self.probes_out.discard(permit)
        if not current:
            assert after == before, "old news changed something"
        if outcome in (CallOutcome.CANCELLED, CallOutcome.IGNORED):
            assert (after.state, after.calls, after.failures) == (before.state, before.calls, before.failures)
        if after.state is BreakerState.OPEN and before.state is not BreakerState.OPEN:
            assert outcome is CallOutcome.FAILURE
            self.opened_at_s = self.now_s
        if after.state is not before.state:
            self.probes_out.clear()

    @rule()
    def isolate(self) -> None:
        self.breaker.isolate()
        self.probes_out.clear()

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.probes_out.clear()

    @invariant()
    def probes_are_limited(self) -> None:
        assert len(self.probes_out) <= POLICY.probes
        assert self.breaker.view(self.now_s).probes_out == len(self.probes_out)

    @invariant()
    def only_moves_of_the_table_happen(self) -> None:
        state = self.breaker.state
        if state is not self.state_before:
            reachable = {target for (source, _), target in TRANSITIONS.items() if source is self.state_before}
            # one admit of an open breaker may rest; a settle may then answer: never more than one move per rule
            assert state in reachable
        self.state_before = state

    @invariant()
    def the_totals_equal_the_ring(self) -> None:
        window = self.breaker._window
        assert [window.calls, window.failed, window.slow] == [sum(column) for column in zip(*window._ring, strict=True)]


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=150, stateful_step_count=60)
