"""Every number that the overload control uses, with its reason.

The simulation (`python -m benchmarks.simulation`) shows what each rule is worth: `--set NAME=VALUE`
tries another number, `--ablate RULE` switches a rule off.
"""

from typing import Final

# --- The limit on requests in flight (limit.py) ---

# Limit = HEADROOM * busy workers + SPARE. One and a half times what keeps the workers busy leaves
# enough queued in the application that no worker starves between two answers. HEADROOM times
# UNCONGESTED_RATIO must stay below 1, or baselines learnt under the limit feed the limit.
HEADROOM: Final = 1.5
SPARE: Final = 3.0  # one worker still needs a request queued behind the running one
OLD_OTHERS_SHARE: Final = 0.25  # of the limit is what late requests of other methods count for
UNCONGESTED_RATIO: Final = 0.5  # requests that start below this share of the limit do not queue

WINDOW_COMPLETIONS_MIN: Final = 8  # fewer say little about a rate
WINDOW_MIN_S: Final = 0.2
WINDOW_MAX_S: Final = 1.0  # a slow application answers less than 8 times a second
WINDOW_BASELINES: Final = 4.0  # and never shorter than this many typical answers
WINDOW_WEIGHT: Final = 0.25  # of one window in the averages: about a second of memory
PEAK_HALF_LIFE_S: Final = 120.0  # how long a closed circuit remembers what was possible

# --- The table: how requests ended, by the number in flight at their start (table.py) ---

RANK_MAX: Final = 4096  # more in flight are one row
RANK_STEP: Final = 1.0625  # a row is a sixteenth of its rank wide, so exact up to 32
TABLE_HALF_LIFE_S: Final = 10.0  # of what a row remembers
ROW_OUTCOMES_MAX: Final = 32.0  # so many endings at most: what is true now must outweigh them
LATE_BASELINES: Final = 1.5  # an answer that takes longer is late: of exponential service
# times 22 % are, of a constant one none, of c workers with 2c
LATE_SLACK_S: Final = 0.01  # in flight more than half. And nobody notices 10 ms
PROVEN_ANSWERS: Final = 6.0  # fewer prove nothing
PROVEN_LATE_SHARE: Final = 0.3
CHANCE: Final = 0.001  # a lean counts if chance makes it this often at most
LATE_CHANCE: Final = 0.05  # the same for late answers: who is limited for nothing is
# let go in half a second, and to wait for proof is dear
LEAN_MIN: Final = 3.0  # bad endings, whatever chance says
LATE_SHARE_MIN: Final = 0.5  # of the answers above an edge are late: they queue
FAILED_SHARE_MIN: Final = 0.3  # of the requests above an edge fail: it spares them
# So many requests in a row pass above the ceiling before it is doubted. An application is free a
# little before its answer is seen, so one of two passes: with answers on their way for 20 ms and 1
# in place of 4 the ceiling of a pool was lost every few seconds (80 % of the POSTs, now 95 to 99).
REFUTED_BY: Final = 4
REFUTED: Final = 0.5  # what is left of old failures when a trial above goes well
TRIAL_S: Final = 1.0  # between two requests above the ceiling

# --- A closed circuit (circuit.py, decide.py): nothing is shed, but bursts are paced ---

FIRST_S: Final = 1.0  # after the start: nothing is known, but the operator's hint
SMALL: Final = 8  # in flight are good for any application: a small one's workers
PACE: Final = 2.0  # times what is proven goes in: it doubles a round trip
PACE_WAIT_S: Final = 0.25  # by then it is known whether the application is full
PACE_WAIT_BASELINES: Final = 4.0
LOOKED_AT_MAX: Final = 512  # in flight, for those that are late
SILENCE_MIN_S: Final = 0.03  # no answer for so long: it pauses, which is no queue
SILENCE_BASELINES: Final = 4.0

# --- Baselines: what an answer takes without a queue (baseline.py) ---

BASELINE_START_S: Final = 0.05  # taken for granted until something is known
BASELINE_LEAST_S: Final = 1e-6  # where it divides
BASELINE_WEIGHT: Final = 0.01  # follows an application that changes within some 100 answers
BASELINE_WEIGHT_LIMITING: Final = 0.1  # while limiting samples are rare, and wrong ones dear
BASELINE_CLIP: Final = 10.0  # a single sample counts at most as so many means
BASELINE_CLIP_AFTER: Final = 10
ROUTE_SAMPLES_MIN: Final = 5  # a route with fewer borrows the application's mean
COLD_SAMPLES: Final = 30  # until then the mean is integral / completions (Little's law)

DIP_SAMPLES: Final = 8  # a dip has done its work when so many uncongested answers came
DIP_EVERY_MIN_S: Final = 2.5
DIP_EVERY_MAX_S: Final = 30.0
DIP_EVERY_BASELINES: Final = 20.0
DIP_MIN_S: Final = 0.25
DIP_BASELINES: Final = 3.0

# --- Entering and leaving LIMITING (circuit.py) ---

STALL_OLDEST: Final = 2  # requests older than the one judged: one or two may be special
STALL_MIN_S: Final = 0.6  # a pause of half a second, to collect garbage, is none
STALL_UNKNOWN_S: Final = 1.0  # where the route is new
STALL_COLD_S: Final = 3.0  # where nothing has been answered yet: it may still warm up
STALL_BASELINES: Final = 5.0
RELIEF_MIN_S: Final = 0.5  # nothing shed for so long, then the circuit may close
RELIEF_BASELINES: Final = 10.0
RELIEF_SHARE: Final = 0.7  # and in flight below this share of the limit

# --- Waiting for a place ---

STORED_WAIT_S: Final = 0.1  # a client who can be answered at once waits this for fresh
STORED_WAIT_BASELINES: Final = 0.5
# Where others wait behind, its lane has enough, so the next place is worth a longer wait. Beside a
# crawler visitors of 4 workers of 100 ms get 96 % of their pages fresh, and 91 % without.
STORED_WAIT_BEFORE_BASELINES: Final = 2.0
STORED_WAIT_BEFORE_S: Final = 0.5  # but no longer than this for their sake
STORED_WAIT_PATIENCE: Final = 2.0  # and at most this many times as long if the guess was wrong
QUEUE_SHARE: Final = 0.5  # of the queue wait is promised away: the answer takes time too
CROWDED_WINDOWS: Final = 2  # with somebody waiting all the time: the work rate is the most

# --- Patience (circuit.py) ---

PATIENCE_BASELINES: Final = 8.0  # an answer that takes so many times the usual is late
PATIENCE_AGAIN_S: Final = 0.1  # look again at those which the state let wait
BODY_MAX_S: Final = 10.0  # bodies flowing longer are downloads, not work in progress

# --- The error breaker (circuit.py) ---

FAILURE_BUCKETS: Final = 20
FAILURE_BUCKET_S: Final = 0.1
FAILURES_IN_A_ROW: Final = 5  # and no success in the window
CLIENT_FAILURES_MAX: Final = 2  # of one client count, so that three must fail
CLIENT_WINDOW_S: Final = 2.0
CLIENTS_AGREE: Final = 3  # from so many clients a failure says something
CLIENT_ACTIVE_S: Final = 30.0  # who was answered well within that time was active
DOUBT_S: Final = 60.0  # after its last failure a client is in doubt no more
CLIENTS_MAX: Final = 1024  # told apart at a time
LINE_LOOKED_AT_MAX: Final = 32  # for a client that is not in doubt
DOUBTED_PROBE_S: Final = 2.0  # so long nobody else asked: then it may be the probe
# Refused connections one after the other: whatever went well a second ago, nobody listens now. A
# share of failures would need as many refusals as there were successes before (74 in front of a
# real application that died at 80 requests a second).
REFUSALS_IN_A_ROW: Final = 5
WAIT_GROWTH: Final = 1.5
NOBODY_CAME_S: Final = 0.5  # since a probe is due: then RETTER asks itself
RAMP_START: Final = 2  # requests in flight when half-open; each success adds one
RAMP_SUCCESSES: Final = 10

# --- Route breakers (routes.py) ---

# A pause (an operator deploys): requests that are held until it is over, of those without a stored
# response. Each costs 2 KB and its client's connection; more would all come at once afterwards.
HELD_MAX: Final = 256
# Nobody is held for longer: browsers and proxies in front give up after a minute.
HELD_S_MAX: Final = 50.0

ROUTES_MAX: Final = 64
ROUTE_SEGMENTS: Final = 4
ROUTE_SEGMENT_BYTES_MAX: Final = 24  # longer ones are titles, tokens, hashes
ROUTE_FAILURES_MIN: Final = 5
ROUTE_FAILURE_RATIO: Final = 0.5
ROUTE_WITNESS_RATIO: Final = 0.25  # of the others at most: else all of it fails
ROUTE_WITNESS_S: Final = 60.0  # on a quiet site another route's last success is one so long
ROUTE_SAMPLES_TO_JUDGE: Final = 10

# --- Whose turn it is (fairness.py, demand.py, lanes.py) ---

DEMAND_HALF_LIFE_S: Final = 10.0  # people read a page for longer, crawlers do not
DEMAND_CLIENTS_MAX: Final = 4096  # told apart: with 200 bytes each
DEMAND_LOOKED_AT_FOR_ROOM: Final = 8  # the lightest of them is forgotten
DEMAND_LOOKED_AT_A_TICK: Final = 128  # the whole table in two seconds
DEMAND_LEAST_S: Final = 0.001  # a demand that has decayed to this is forgotten
FAIR_SHARE_EVERY_S: Final = 0.25  # the whole table is read for it: a millisecond if it is full
LIGHT_SHARE: Final = 0.005  # of the capacity is never too much for a client,
LIGHT_ANSWERS: Final = 12.0  # nor so many answers: a page with its parts
LIGHT_ANSWERS_FIRST: Final = 3.0  # but so many when an overload begins, more as time passes
LEARNT_SHARE: Final = 0.5  # of the places in use: demand is counted from there
# One place in so many goes to who has a stored response. With 3 a full house answers 36 % of the
# pages that were never stored (bar 40, and 57 without turns), with 4 it answers 43 %.
STORED_TURN: Final = 4
# Turns that nobody took are kept. With 1 a crawl from 20,000 addresses leaves visitors 93.1 % of
# their pages fresh, with 8 it leaves 97 %; 16 give no more.
TURNS_KEPT_MAX: Final = 8
HEAVY_TURN: Final = 16  # one place in so many goes to the heavy ones, or they starve
HEAVY_LOOKED_AT: Final = 8  # of these, the one that has got least
LANE_SHARES: Final = (1.0, 0.875, 0.75)  # of all that may wait, when a lane is full
LEFT_MAX: Final = 64  # that left a line and still stand in it
