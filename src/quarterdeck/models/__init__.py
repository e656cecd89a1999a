"""The models room: adapters to whatever writes proposals. They translate and classify, and decide nothing.

**Purpose.** Implement :class:`~quarterdeck.ports.model.Model` for

* any endpoint that speaks the OpenAI chat protocol (``openai``; its parts: ``chat`` writes the request, ``deltas`` assembles
  the answer, ``failures`` sorts what can go wrong, ``ceiling`` bounds what an endpoint may send),
* a small model that runs here, without key and network (``local``; ``structured`` turns tools into one JSON Schema that its
  output must fit, ``prompts`` writes its prompt, ``local_engine`` runs the weights),

and say what tokens cost (``prices``, a dated list that is installed, never fetched) and how many a request may hold at most
(``tokens``).

**Promises.**

* One ``propose`` is one request. Nothing here retries, waits for a rate limit or falls back; that is bounded elsewhere.
* Arguments of calls leave this room as raw text, exactly as the model wrote them. Nothing here repairs, checks or runs them.
* What a provider sends is hostile until proven otherwise: sizes are limited, types are checked, text can always be stored.
* A failure is a :class:`~quarterdeck.ports.model.ModelFailure` with one of the codes below. Cancelling passes untouched.
* A key is read when a request is sent. It is in no ``repr``, message or traceback of this room.
* Importing this room or ``quarterdeck`` imports no client library and loads no weights; the first call does, off the loop.

=========================  =========  ===============================================================================
code                       retried    when
=========================  =========  ===============================================================================
``model.timeout``          yes        no full answer within ``timeout_s``, or the endpoint said 408
``model.unreachable``      yes        no connection, or it broke before or during the answer
``model.rate_limited``     yes        429, with the provider's wish where it gave one; not retried if a quota is used up
``model.server_error``     yes        5xx, or an error in the middle of a stream
``model.garbled``          yes        a stream that is no stream of chunks; not retried if too large or no stream at all
``model.authentication``   no         401, 403 or no key
``model.rejected``         no         every other 4xx, or a request that the local engine cannot express
``model.unavailable``      no         the local engine or its weights are not installed
=========================  =========  ===============================================================================

It must never know of runs, budgets, policies or stores.
"""
