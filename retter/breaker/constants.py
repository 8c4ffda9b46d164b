"""Every number that the overload control uses, with its reason.

The simulation (`python -m benchmarks.simulation`) shows the effect of each rule: `--set NAME=VALUE`
tries another number, `--ablate RULE` switches a rule off.
"""

from typing import Final

# --- The limit on requests in flight (limit.py) ---

# Limit = HEADROOM * busy workers + SPARE. With one and a half times as many in flight as busy
# workers, enough requests are queued in the application that no worker is idle between two answers.
# HEADROOM times UNCONGESTED_RATIO must stay below 1. Otherwise baselines that are learnt under the
# limit would raise the limit.
HEADROOM: Final = 1.5
SPARE: Final = 3.0  # one worker needs one request queued behind the running one
OLD_OTHERS_SHARE: Final = 0.25  # of the limit: slow requests of other methods count for no more
UNCONGESTED_RATIO: Final = 0.5  # requests that start below this share of the limit do not queue

WINDOW_COMPLETIONS_MIN: Final = 8  # fewer answers say little about a rate
WINDOW_MIN_S: Final = 0.2  # a quick application gives enough answers in this time
WINDOW_MAX_S: Final = 1.0  # a slow application gives fewer than 8 answers in a second
WINDOW_BASELINES: Final = 4.0  # a window is never shorter than this many baselines
WINDOW_WEIGHT: Final = 0.25  # the averages remember about a second
PEAK_HALF_LIFE_S: Final = 120.0  # a closed circuit remembers the peak rate for minutes

# --- The table: how requests ended, by the number in flight at their start (table.py) ---

RANK_MAX: Final = 4096  # all higher ranks share one row
RANK_STEP: Final = 1.0625  # a row is a sixteenth of its rank wide, so the rows up to 32 are exact
TABLE_HALF_LIFE_S: Final = 10.0  # the application changes: a row forgets half in this time
ROW_OUTCOMES_MAX: Final = 32.0  # a row remembers no more, so that new outcomes outweigh old ones
# An answer that takes longer than this is late. With exponential service times 22 % are late by
# chance, with constant ones none. With twice as many in flight as workers, more than half are late.
LATE_BASELINES: Final = 1.5
LATE_SLACK_S: Final = 0.01  # nobody notices 10 ms
PROVEN_ANSWERS: Final = 6.0  # fewer answers prove nothing
PROVEN_LATE_SHARE: Final = 0.3  # 22 % may be late by chance
CHANCE: Final = 0.001  # a conclusion is a false alarm once in a thousand times at most
# The same for late answers. A false alarm costs only seconds of limiting, but waiting for stronger
# proof makes visitors wait.
LATE_CHANCE: Final = 0.05
LEAN_MIN: Final = 3.0  # fewer bad outcomes prove nothing, however unlikely they are
LATE_SHARE_MIN: Final = 0.5  # requests that queue are late more often than not
FAILED_SHARE_MIN: Final = 0.3  # below that a ceiling would refuse more than the application does
# So many requests in a row pass above the ceiling before it is doubted. An application is free a
# little before its answer is seen, so one of two passes: with answers on their way for 20 ms and 1
# in place of 4 the ceiling of a pool was lost every few seconds (80 % of the POSTs, now 95 to 99).
REFUTED_BY: Final = 4
REFUTED: Final = 0.5  # the factor for old failures when trials above them succeed
TRIAL_S: Final = 1.0  # one request a second is tried above the ceiling

# --- A closed circuit (circuit.py, decide.py): nothing is shed, but bursts are paced ---

FIRST_S: Final = 1.0  # the operator's hint (limit_start) counts for this long after the start
SMALL: Final = 8  # every application can handle this many: a small one has this many workers
PACE: Final = 2.0  # times the proven rank may be in flight: it can double in each round trip
PACE_WAIT_S: Final = 0.25  # after this time it is known whether the application is full
PACE_WAIT_BASELINES: Final = 4.0  # a slow application needs a few answers for that
LOOKED_AT_MAX: Final = 512  # at most this many requests in flight are checked for being late
SILENCE_MIN_S: Final = 0.03  # no answer for this long: the application pauses, it is not full
SILENCE_BASELINES: Final = 4.0  # a slow application may be silent for longer

# --- Baselines: service times without queueing (baseline.py) ---

BASELINE_START_S: Final = 0.05  # assumed until the first answer
BASELINE_LEAST_S: Final = 1e-6  # a divisor must not be 0
BASELINE_WEIGHT: Final = 0.01  # a baseline follows a changed application within about 100 answers
BASELINE_WEIGHT_LIMITING: Final = 0.1  # in LIMITING samples are rare and wrong baselines costly
BASELINE_CLIP: Final = 10.0  # one outlier counts as this many means at most
BASELINE_CLIP_AFTER: Final = 10  # with fewer samples an outlier cannot be recognized
ROUTE_SAMPLES_MIN: Final = 5  # a route with fewer samples uses the application's mean
COLD_SAMPLES: Final = 30  # the first answers to arrive are the short ones

DIP_SAMPLES: Final = 8  # a dip ends after this many uncongested answers
DIP_FIRST_S: Final = 1.0  # after entering LIMITING: the baselines may be wrong
DIP_EVERY_MIN_S: Final = 2.5  # wrong baselines are corrected within seconds
DIP_EVERY_MAX_S: Final = 30.0  # and within half a minute if answers are slow
DIP_EVERY_BASELINES: Final = 20.0  # one dip in this many baselines costs little
DIP_MIN_S: Final = 0.25  # the queue drains, and a few answers come without queueing
DIP_BASELINES: Final = 3.0  # the same if answers are slow

# --- Into LIMITING and out of it (pulse.py, sweep.py) ---

STALL_OLDEST: Final = 2  # this many requests may hang for reasons of their own
STALL_MIN_S: Final = 0.6  # half a second without answers (garbage collection) is no stall
STALL_UNKNOWN_S: Final = 1.0  # the same on a new route, whose baseline is not known
STALL_COLD_S: Final = 3.0  # before the first answer the application may still be starting
STALL_BASELINES: Final = 5.0  # a request that takes this many baselines hangs
RELIEF_MIN_S: Final = 0.5  # the circuit closes if nothing was shed for this long
RELIEF_BASELINES: Final = 10.0  # and for this many baselines
RELIEF_SHARE: Final = 0.7  # and at most this share of the limit is in flight

# --- Waiting for a place ---

STORED_WAIT_S: Final = 0.1  # a GET with a stored response waits no longer for a fresh answer
STORED_WAIT_BASELINES: Final = 0.5  # or half a baseline if answers are slow
# If other requests wait behind it, its lane has enough places, so it is worth waiting longer for
# the next one. Beside a crawler, visitors of an application with 4 workers and 100 ms an answer get
# 96 % of their pages fresh, and 91 % without this rule.
STORED_WAIT_BEFORE_BASELINES: Final = 2.0
STORED_WAIT_BEFORE_S: Final = 0.5  # but no longer than this
STORED_WAIT_PATIENCE: Final = 2.0  # times the expected wait: then it ends, the estimate was wrong
QUEUE_SHARE: Final = 0.5  # of the queue wait is for queueing: the answer takes time too
ANSWER_BASELINES: Final = 0.7  # with exponential service times half of the answers take longer
CROWDED_WINDOWS: Final = 2  # the work rate is the capacity only if requests waited all the time

# --- Patience (settings.py, sweep.py) ---

PATIENCE_BASELINES: Final = 8.0  # a request that takes longer gets the stored response
PATIENCE_AGAIN_S: Final = 0.1  # requests that the state lets wait longer are examined again
BODY_MAX_S: Final = 10.0  # a body that takes longer is a download, not work of the application

# --- Failures, clients and probes (failures.py, clients.py, opening.py) ---

FAILURE_BUCKETS: Final = 20  # the window of outcomes is 2 s long
FAILURE_BUCKET_S: Final = 0.1  # the length of one bucket of the window
FAILURES_IN_A_ROW: Final = 5  # a quiet site never has ten outcomes in 2 s
CLIENT_FAILURES_MAX: Final = 2  # failures of one client that count, so that three clients must fail
CLIENT_WINDOW_S: Final = 2.0  # the time in which they are counted
CLIENTS_AGREE: Final = 3  # failures of this many clients are a sign that the application fails
CLIENT_ACTIVE_S: Final = 30.0  # a client with a good answer within this time counts as active
DOUBT_S: Final = 60.0  # a client is in doubt for this long after its last failure
CLIENTS_MAX: Final = 1024  # at most this many clients are known at a time
LINE_LOOKED_AT_MAX: Final = 32  # at most this many requests in a queue are checked for doubt
DOUBTED_PROBE_S: Final = 2.0  # without another client for this long, one in doubt may be the probe
# Refused connections in a row: nothing listens now, whatever succeeded a second ago. A share of
# failures would need as many refusals as there were successes before (74 in front of a real
# application that died at 80 requests a second).
REFUSALS_IN_A_ROW: Final = 5
WAIT_GROWTH: Final = 1.5  # the wait between probes grows by this factor while they fail
NOBODY_CAME_S: Final = 0.5  # a probe has been due for this long: RETTER sends its own
RAMP_START: Final = 2  # the limit at the start of half-open; it grows by one with each success
RAMP_SUCCESSES: Final = 10  # this many successes in a row are not chance

# --- A pause by an operator (lanes.py) ---

# At most this many requests without a stored response are held during a pause (an operator
# deploys). Each costs 2 KB and its client's connection. All held requests come at once after the
# pause, so more would be too many.
HELD_MAX: Final = 256
# No request is held for longer: browsers and proxies in front give up after a minute.
HELD_S_MAX: Final = 50.0

# --- Routes (routes.py) ---

ROUTES_MAX: Final = 64  # at most this many routes have their own entry
ROUTE_SEGMENTS: Final = 4  # deeper segments name content, not a part of the program
ROUTE_SEGMENT_BYTES_MAX: Final = 24  # longer segments are titles, tokens and hashes
ROUTE_FAILURES_MIN: Final = 5  # fewer failures are chance
ROUTE_FAILURE_RATIO: Final = 0.5  # a page that works more often than not is worth a request
ROUTE_WITNESS_RATIO: Final = 0.25  # if the other routes fail more often, the application fails
ROUTE_WITNESS_S: Final = 60.0  # on a quiet site: another route had a good answer within this time
ROUTE_SAMPLES_TO_JUDGE: Final = 10  # with this many answers of a route, STALL_MIN_S applies to it

# --- Whose turn it is (fairness.py, demand.py, lanes.py) ---

DEMAND_HALF_LIFE_S: Final = 10.0  # people read a page for longer than this, crawlers do not
DEMAND_CLIENTS_MAX: Final = 4096  # clients in the table, 200 bytes each
DEMAND_LOOKED_AT_FOR_ROOM: Final = 8  # to make room, the one with least demand of these is removed
DEMAND_LOOKED_AT_A_TICK: Final = 128  # entries examined in a tick: the whole table in two seconds
DEMAND_LEAST_S: Final = 0.001  # a client whose demand has decayed to this is removed
FAIR_SHARE_EVERY_S: Final = 0.25  # it reads the whole table: a millisecond if the table is full
LIGHT_SHARE: Final = 0.005  # of the capacity is never too much for a client,
LIGHT_ANSWERS: Final = 12.0  # nor are this many answers: a page with its parts
# When an overload begins, only this many answers are not too much; the number grows with time.
LIGHT_ANSWERS_FIRST: Final = 2.0
# But only if the clients above that number ask for this share of the work that is missing. Beside
# 5,000 crawlers that each ask for less than a visitor, it would be the visitors who are above it.
SHORTAGE_SHARE: Final = 0.5
LEARNT_SHARE: Final = 0.5  # demand is counted when this share of the places is in use
# One place in this many goes to a request with a stored response. With 3, a full application
# answers 36 % of the pages that were never stored (the bar is 40; without turns it is 57). With 4
# it answers 39 to 43 %, with 5 it answers 42 to 46 %.
STORED_TURN: Final = 5
# Unused turns are kept, up to this many. Beside a crawl from 20,000 addresses visitors get 93.1 %
# of their pages fresh with 1 and 97 % with 8; 16 is no better.
TURNS_KEPT_MAX: Final = 8
HEAVY_TURN: Final = 16  # one place in this many goes to the heavy lane, or it would starve
HEAVY_LOOKED_AT: Final = 8  # of the first this many, the one whose client got least is next
LANE_SHARES: Final = (1.0, 0.875, 0.75)  # of queue_max: a lane is full if this many wait in all
LEFT_MAX: Final = 64  # entries that may remain in a queue after their permits left it
