"""A run whose routing was recorded, compiled: the kernel's own loop, with no call of Python in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.compiled import loopable, njit
from sim.kernel import ARRIVAL, LIVELOCK, policy_events
from sim.policies import PolicyError
from sim.recording import NotRecorded, Recording
from sim.routing import Dispatch
from sim.state import (
    BEHIND,
    HEAD,
    HELD,
    NOBODY,
    NOW,
    PERIOD,
    PROMPT_LENGTH,
    QUEUED,
    REJECTED,
    REPLICA,
    ROUTED,
    STATE,
    TAIL,
    WAITING,
    WAITING_COUNT,
    WAITING_PROMPT_TOKENS,
    State,
    unobserved,
)

_DONE, _TOO_FEW, _NOT_THERE, _STUCK = 0, 1, 2, 3

_events = loopable(policy_events)


@njit
def _replay(
    state: State,
    ends: NDArray[np.int64],
    requests: NDArray[np.int32],
    replicas: NDArray[np.int32],
    first: int,
    needed: NDArray[np.int64],
    room: NDArray[np.int64],
    most: int,
    told: NDArray[np.int64],
) -> int:
    """Run the cluster to its end with the decisions of a recording from call `first` on.

    `needed[request]`, `room[replica]` and `most`, the room of the largest, are in blocks. Returns _DONE,
    _TOO_FEW (a call is not in the recording), _NOT_THERE (it sends what is not queued, or nowhere), or _STUCK
    (`state.turn[0]` works without progress). `told` is then the number of calls so far, the longest queue,
    and how many are queued.
    """
    call, queued, longest, arrived, answer = first, 0, 0, 0, _DONE
    for event in _events(state):
        if event == LIVELOCK:
            answer = _STUCK
            break
        if event == ARRIVAL:
            arrived += 1
            if needed[arrived - 1] > most:
                state.known[arrived - 1, STATE] = REJECTED
                continue
            queued += 1
        if call + 1 >= len(ends):
            answer = _TOO_FEW
            break
        for k in range(ends[call], ends[call + 1]):
            request, replica = requests[k], replicas[k]
            if not (0 <= request < arrived and 0 <= replica < len(room)):
                answer = _NOT_THERE
                break
            if state.known[request, STATE] != QUEUED:
                answer = _NOT_THERE
                break
            queued -= 1
            if needed[request] > room[replica]:
                state.known[request, STATE] = REJECTED
                continue
            state.known[request, STATE] = WAITING
            state.place[request, REPLICA] = replica
            state.times[request, ROUTED] = state.clock[NOW]
            last = state.ends[replica, TAIL]
            if last == NOBODY:
                state.ends[replica, HEAD] = request
            else:
                state.place[last, BEHIND] = request
            state.ends[replica, TAIL] = request
            state.place[request, BEHIND] = NOBODY
            state.gauges[replica, WAITING_COUNT] += 1
            state.gauges[replica, WAITING_PROMPT_TOKENS] += state.lengths[request, PROMPT_LENGTH]
        if answer != _DONE:
            break
        call += 1
        longest = max(longest, queued)
        if state.clock[PERIOD] > 0.0:
            state.turn[HELD] = queued > 0
    told[0], told[1], told[2] = call - first, longest, queued
    return answer


def replay(state: State, recording: Recording, dispatch: Dispatch) -> tuple[int, int]:
    """`sim.conversation.converse` for a recorded router: the number of its calls, and the longest queue.

    Raises PolicyError if the recording does not fit the run, as only one made elsewhere does not.
    """
    state, told = unobserved(state), np.zeros(3, np.int64)
    room = np.array(dispatch.room[: len(dispatch.replicas)], np.int64)
    needed = dispatch.blocks_needed
    answer = _replay(
        state,
        recording.ends,
        recording.requests,
        recording.replicas,
        recording.routed,
        np.zeros(len(state.arrival), np.int64) if needed is None else np.array(needed, np.int64),
        room,
        max(dispatch.room),
        told,
    )
    calls, longest, queued = told.tolist()
    recording.routed += calls
    recording.asked += calls + (answer == _TOO_FEW)
    now = float(state.clock[NOW])
    if answer == _TOO_FEW:
        raise NotRecorded(f"route was asked for a decision at {now:.3f} s that was not recorded")
    if answer == _NOT_THERE:
        raise NotRecorded(f"call {recording.routed} at {now:.3f} s names what is not there")
    if answer == _STUCK:
        raise PolicyError(f"livelock at {now:.3f} s: replica {state.turn[0]} works without progress")
    if queued:
        raise PolicyError(f"the recorded router held {queued} requests for ever, after {now:.3f} s")
    return calls, longest
