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
SPARE: Final = 3.0  # one worker needs one request queued behind the running one
OLD_OTHERS_SHARE: Final = 0.25  # of the limit: late requests of other methods count for no more
UNCONGESTED_RATIO: Final = 0.5  # requests that start below this share of the limit meet no queue

WINDOW_COMPLETIONS_MIN: Final = 8  # fewer answers say little about a rate
WINDOW_MIN_S: Final = 0.2  # a quick application answers enough by then
WINDOW_MAX_S: Final = 1.0  # a slow application answers less than 8 times a second
WINDOW_BASELINES: Final = 4.0  # a window is never shorter than so many typical answers
WINDOW_WEIGHT: Final = 0.25  # the averages remember about a second
PEAK_HALF_LIFE_S: Final = 120.0  # a closed circuit remembers for minutes what was possible

# --- The table: how requests ended, by the number in flight at their start (table.py) ---

RANK_MAX: Final = 4096  # all that have more in flight share one row
RANK_STEP: Final = 1.0625  # a row is a sixteenth of its rank wide, so the rows up to 32 are exact
TABLE_HALF_LIFE_S: Final = 10.0  # the application changes: a row forgets half in this time
ROW_OUTCOMES_MAX: Final = 32.0  # a row remembers no more: what is true now must outweigh what was
# An answer that takes longer than this is late. With exponential service times 22 % are late by
# chance, with constant ones none. With twice as many in flight as workers more than half are.
LATE_BASELINES: Final = 1.5
LATE_SLACK_S: Final = 0.01  # nobody notices 10 ms
PROVEN_ANSWERS: Final = 6.0  # fewer answers prove nothing
PROVEN_LATE_SHARE: Final = 0.3  # 22 % may be late by chance
CHANCE: Final = 0.001  # chance makes a conclusion once in a thousand times at most
# The same for late answers. A false conclusion costs half a second of limiting, and to wait for
# proof costs visitors.
LATE_CHANCE: Final = 0.05
LEAN_MIN: Final = 3.0  # fewer bad endings conclude nothing, whatever chance says
LATE_SHARE_MIN: Final = 0.5  # those who queue are late more often than not
FAILED_SHARE_MIN: Final = 0.3  # below that a ceiling would refuse more than the application does
# So many requests in a row pass above the ceiling before it is doubted. An application is free a
# little before its answer is seen, so one of two passes: with answers on their way for 20 ms and 1
# in place of 4 the ceiling of a pool was lost every few seconds (80 % of the POSTs, now 95 to 99).
REFUTED_BY: Final = 4
REFUTED: Final = 0.5  # this much is left of old failures when trials above them go well
TRIAL_S: Final = 1.0  # one request a second is tried above the ceiling

# --- A closed circuit (circuit.py, decide.py): nothing is shed, but bursts are paced ---

FIRST_S: Final = 1.0  # the operator's hint counts for so long after the start
SMALL: Final = 8  # so many in flight are good for any application: a small one's workers
PACE: Final = 2.0  # times what is proven goes in, so that it doubles in a round trip
PACE_WAIT_S: Final = 0.25  # by then it is known whether the application is full
PACE_WAIT_BASELINES: Final = 4.0  # a slow application needs a few answers for that
LOOKED_AT_MAX: Final = 512  # of those in flight so many are asked whether they are late already
SILENCE_MIN_S: Final = 0.03  # an application that is silent for so long pauses: no queue
SILENCE_BASELINES: Final = 4.0  # a slow application is silent for longer

# --- Baselines: what an answer takes without a queue (baseline.py) ---

BASELINE_START_S: Final = 0.05  # taken for granted until something is known
BASELINE_LEAST_S: Final = 1e-6  # a divisor must not be 0
BASELINE_WEIGHT: Final = 0.01  # a change of the application is followed within some 100 answers
BASELINE_WEIGHT_LIMITING: Final = 0.1  # while limiting samples are rare, and wrong baselines dear
BASELINE_CLIP: Final = 10.0  # one freak counts as so many means at most
BASELINE_CLIP_AFTER: Final = 10  # before so many samples nobody knows what a freak is
ROUTE_SAMPLES_MIN: Final = 5  # a route with fewer borrows the application's mean
COLD_SAMPLES: Final = 30  # the first answers to come back are the short ones

DIP_SAMPLES: Final = 8  # a dip ends when so many uncongested answers came
DIP_FIRST_S: Final = 1.0  # after entering LIMITING: what is known may be wrong
DIP_EVERY_MIN_S: Final = 2.5  # wrong baselines are corrected within seconds
DIP_EVERY_MAX_S: Final = 30.0  # and within half a minute where answers are slow
DIP_EVERY_BASELINES: Final = 20.0  # a dip every so many answers costs little
DIP_MIN_S: Final = 0.25  # the queue drains, and a few answers come without it
DIP_BASELINES: Final = 3.0  # the same where answers are slow

# --- Into LIMITING and out of it (pulse.py, sweep.py) ---

STALL_OLDEST: Final = 2  # so many requests may hang for reasons of their own
STALL_MIN_S: Final = 0.6  # a pause of half a second, to collect garbage, is no stall
STALL_UNKNOWN_S: Final = 1.0  # the same on a new route, of which nothing is known
STALL_COLD_S: Final = 3.0  # before any answer the application may still warm up
STALL_BASELINES: Final = 5.0  # an answer that takes so many times the usual hangs
RELIEF_MIN_S: Final = 0.5  # the circuit closes when nothing was shed for so long
RELIEF_BASELINES: Final = 10.0  # and for so many answers
RELIEF_SHARE: Final = 0.7  # and less than this share of the limit is in flight

# --- Waiting for a place ---

STORED_WAIT_S: Final = 0.1  # who can be answered at once waits no longer for a fresh answer
STORED_WAIT_BASELINES: Final = 0.5  # but half an answer where answers are slow
# Where others wait behind, its lane has enough, so the next place is worth a longer wait. Beside a
# crawler visitors of 4 workers of 100 ms get 96 % of their pages fresh, and 91 % without.
STORED_WAIT_BEFORE_BASELINES: Final = 2.0
STORED_WAIT_BEFORE_S: Final = 0.5  # but no longer than this
STORED_WAIT_PATIENCE: Final = 2.0  # times that wait, if the guess was wrong
QUEUE_SHARE: Final = 0.5  # so much of the queue wait is promised away: the answer takes time too
CROWDED_WINDOWS: Final = 2  # a work rate is the most only if somebody waited all the time

# --- Patience (settings.py, sweep.py) ---

PATIENCE_BASELINES: Final = 8.0  # who waits for longer gets the stored response
PATIENCE_AGAIN_S: Final = 0.1  # those whom the state lets wait are looked at again
BODY_MAX_S: Final = 10.0  # bodies that flow for longer are downloads, no work in progress

# --- Failures, clients and probes (failures.py, clients.py, opening.py) ---

FAILURE_BUCKETS: Final = 20  # the window of outcomes is 2 s long
FAILURE_BUCKET_S: Final = 0.1  # and forgets in steps of this
FAILURES_IN_A_ROW: Final = 5  # on a quiet site ten outcomes in 2 s never come
CLIENT_FAILURES_MAX: Final = 2  # so many of one client count, so that three clients must fail
CLIENT_WINDOW_S: Final = 2.0  # in so long a time
CLIENTS_AGREE: Final = 3  # failures of so many clients say something about the application
CLIENT_ACTIVE_S: Final = 30.0  # who was answered well within that time is a witness
DOUBT_S: Final = 60.0  # a client is in doubt for so long after its last failure
CLIENTS_MAX: Final = 1024  # so many clients are told apart at a time
LINE_LOOKED_AT_MAX: Final = 32  # so many in the line are asked whether they are in doubt
DOUBTED_PROBE_S: Final = 2.0  # who is in doubt may be the probe when nobody else asked for so long
# Refused connections one after the other: whatever went well a second ago, nobody listens now. A
# share of failures would need as many refusals as there were successes before (74 in front of a
# real application that died at 80 requests a second).
REFUSALS_IN_A_ROW: Final = 5
WAIT_GROWTH: Final = 1.5  # a dead application is asked less and less
NOBODY_CAME_S: Final = 0.5  # when a probe has been due for so long RETTER asks itself
RAMP_START: Final = 2  # so many are in flight when half-open, and one more with each success
RAMP_SUCCESSES: Final = 10  # so many successes in a row are no luck

# --- A pause by an operator (queue.py) ---

# A pause (an operator deploys): requests that are held until it is over, of those without a stored
# response. Each costs 2 KB and its client's connection; more would all come at once afterwards.
HELD_MAX: Final = 256
# Nobody is held for longer: browsers and proxies in front give up after a minute.
HELD_S_MAX: Final = 50.0

# --- Routes (routes.py) ---

ROUTES_MAX: Final = 64  # so many routes are told apart
ROUTE_SEGMENTS: Final = 4  # deeper paths are places in the content, not in the program
ROUTE_SEGMENT_BYTES_MAX: Final = 24  # longer segments are titles, tokens and hashes
ROUTE_FAILURES_MIN: Final = 5  # fewer failures are chance
ROUTE_FAILURE_RATIO: Final = 0.5  # a page that works more often than not is worth asking for
ROUTE_WITNESS_RATIO: Final = 0.25  # if the others fail more often the whole application fails
ROUTE_WITNESS_S: Final = 60.0  # on a quiet site another route was answered no longer ago than this
ROUTE_SAMPLES_TO_JUDGE: Final = 10  # from so many answers on a stall is seen early

# --- Whose turn it is (fairness.py, demand.py, lanes.py) ---

DEMAND_HALF_LIFE_S: Final = 10.0  # people read a page for longer, crawlers do not
DEMAND_CLIENTS_MAX: Final = 4096  # told apart: with 200 bytes each
DEMAND_LOOKED_AT_FOR_ROOM: Final = 8  # the lightest of them is forgotten
DEMAND_LOOKED_AT_A_TICK: Final = 128  # the whole table in two seconds
DEMAND_LEAST_S: Final = 0.001  # a demand that has decayed to this is forgotten
FAIR_SHARE_EVERY_S: Final = 0.25  # the whole table is read for it: a millisecond if it is full
LIGHT_SHARE: Final = 0.005  # of the capacity is never too much for a client,
LIGHT_ANSWERS: Final = 12.0  # nor so many answers: a page with its parts
# But so many when an overload begins, more as time passes. With 2.25 a crawl of 1x from 100
# addresses is found sooner (97 % fresh, not 94), and visitors who ask for more than each crawler
# suffer (89 % fresh beside 5,000 addresses over sockets, not 95).
LIGHT_ANSWERS_FIRST: Final = 3.0
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
