/*
 * Locks along a session's chain, with contention, loss, repetition and any order of messages.
 *
 *     0 ---- 1 ---- 2 ---- 3          agents in the order of the chain; the lock of the subsession
 *       lock0  lock1  lock2           between a and a + 1 is kept by agent a
 *
 *     requestLock -->  pending          cancelLock -->  unlocked        release -->  unlocked, or gone
 *     <-- ackLock      locked           <-- ackCancel                   <-- ackRelease
 *     <-- nackLock     unlocked
 *
 * The code beside it is dysco/agent/reconfigure: locking and member; what happens between a lock and
 * its release is paths.pml's. What is abstracted away: deltas, tokens, and when timers fire (a message
 * may stay in the network for as long as it likes, and a requester may give up at any moment).
 *
 * A message is a bit in the network: `net[kind]` has one for each reconfiguration and receiver. It is
 * delivered in any order. LOSSES may vanish and REPEATS may be delivered and stay, in the whole run. A
 * waiting anchor says its message again once nothing of its reconfiguration is under way: before
 * that, saying it again would be a repetition, which is there already. TRIES bounds how often, so that
 * a message that is never answered fails an assertion instead of going round for ever.
 */

#include "states.pml"           /* from model/table.py */

#ifndef N
#define N 4                     /* agents */
#endif
#ifndef R
#define R 2                     /* reconfigurations */
#endif
#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef REPEATS
#define REPEATS 1
#endif
#ifndef GIVE_UP
#define GIVE_UP 1               /* a left anchor may give up at any moment */
#endif
#ifndef ENDS
#define ENDS 0                  /* the session may end */
#endif
#define TRIES (LOSSES + 2)

/* The reconfigurations: from the agent at the left anchor to the one at the right. */
#ifndef LEFT0
#define LEFT0 0
#endif
#ifndef RIGHT0
#define RIGHT0 2
#endif
#ifndef LEFT1
#define LEFT1 1
#endif
#ifndef RIGHT1
#define RIGHT1 3
#endif
#ifndef LEFT2
#define LEFT2 0
#endif
#ifndef RIGHT2
#define RIGHT2 3
#endif
#define LEFT(r)  ((r) == 0 -> LEFT0 : ((r) == 1 -> LEFT1 : LEFT2))
#define RIGHT(r) ((r) == 0 -> RIGHT0 : ((r) == 1 -> RIGHT1 : RIGHT2))

/* Two of one left anchor: the later has the higher number. */
#ifdef BUG_LATE_LOCK
#define OVER_BY(r, set) false
#else
#define OVER_BY(r, set) \
    ((((set) >> (r)) & 1) || \
     (R > 1 && (r) < 1 && LEFT(1) == LEFT(r) && (((set) >> 1) & 1)) || \
     (R > 2 && (r) < 2 && LEFT(2) == LEFT(r) && (((set) >> 2) & 1)))
#endif

#define NOBODY 15
#define NONE   15

/* Kinds of messages. */
#define REQUEST     0
#define ACK_LOCK    1
#define NACK_LOCK   2
#define CANCEL      3
#define ACK_CANCEL  4
#define RELEASE     5
#define ACK_RELEASE 6
#define KINDS       7

/* Left anchor: L_CONNECTING stands for all between the lock and its release, which is paths.pml's:
 * handshake, cutoffs, drain. Right anchor: R_LOCKED and R_DRAINED likewise. */

byte lock[N] = U_UNLOCKED;      /* by agent */
byte holder[N] = NONE;  /* reconfiguration */
byte parked[N] = NONE;
byte ended[N];          /* reconfigurations that are over at that lock */
byte ended_right[N];    /* and at that right anchor */
byte next_left[N];      /* neighbours on the chain, as they are now */
byte next_right[N];
byte left[R] = L_NONE;  /* state of each left anchor */
byte right[R] = R_NONE;
byte tries[R];
byte why_failed[R];     /* 1: it gave up by itself */
bool over_session;
bool told[R];                   /* the left anchor knows that the session is over */
byte losses = LOSSES;
byte repeats = REPEATS;

byte net[KINDS * R];            /* bits: receivers */
byte via[R * N];                /* who sent what goes rightwards, as its receiver sees it */
byte way_left[R * N];           /* neighbours that an agent remembers for a reconfiguration */
byte way_right[R * N];

/* Scratch, always so between steps. */
byte waiting = NONE;
byte from = NOBODY;
byte at = NOBODY;

#define BIT(a)              (1 << (a))
#define UNDER_WAY(k, r, a)  (net[(k) * R + (r)] & BIT(a))
#define QUIET(r) \
    (!net[REQUEST * R + (r)] && !net[ACK_LOCK * R + (r)] && !net[NACK_LOCK * R + (r)] && \
     !net[CANCEL * R + (r)] && !net[ACK_CANCEL * R + (r)] && !net[RELEASE * R + (r)] && \
     !net[ACK_RELEASE * R + (r)])

inline send(k, r, to) {
    if
    :: to != NOBODY -> net[(k) * R + (r)] = net[(k) * R + (r)] | BIT(to)
    :: else
    fi
}

inline send_right(k, r, from) {
    send(k, r, way_right[(r) * N + (from)]);
    if
    :: way_right[(r) * N + (from)] != NOBODY -> via[(r) * N + way_right[(r) * N + (from)]] = from
    :: else
    fi
}

/* A left anchor without a way to the left tells itself. */
inline send_left(k, r, from) {
    if
    :: way_left[(r) * N + (from)] != NOBODY -> send(k, r, way_left[(r) * N + (from)])
    :: way_left[(r) * N + (from)] == NOBODY && LEFT(r) == from -> send(k, r, from)
    :: else
    fi
}

inline remember(r, a, from) {
    way_left[(r) * N + (a)] = from;
    way_right[(r) * N + (a)] = next_right[a]
}

/* Lock.request, for one that goes on to the right from here. */
inline ask(r, a) {
    if
    :: OVER_BY(r, ended[a]) || lock[a] == U_GONE -> send_left(NACK_LOCK, r, a)
    :: else ->
        if
        :: lock[a] == U_UNLOCKED ->
            MARK(ROLE_LOCK, U_UNLOCKED, E_REQUEST, U_PENDING);
            lock[a] = U_PENDING;
            holder[a] = r;
            send_right(REQUEST, r, a)
        :: lock[a] != U_UNLOCKED && holder[a] == r -> send_right(REQUEST, r, a)
        :: else ->
            if
            :: lock[a] == U_PENDING && LEFT(holder[a]) == a &&
               (parked[a] == NONE || parked[a] == r) -> parked[a] = r
            :: else -> send_left(NACK_LOCK, r, a)
            fi
        fi
    fi
}

/* Lock._free: whoever is parked here goes on. */
inline free(a, event, to) {
    MARK(ROLE_LOCK, lock[a], event, to);
    lock[a] = to;
    holder[a] = NONE;
    if
    :: parked[a] != NONE ->
        waiting = parked[a];
        parked[a] = NONE;
        ask(waiting, a);
        waiting = NONE
    :: else
    fi
}

inline refuse_parked(a) {
    if
    :: parked[a] != NONE ->
        waiting = parked[a];
        parked[a] = NONE;
        send_left(NACK_LOCK, waiting, a);
        waiting = NONE
    :: else
    fi
}

#ifdef BUG_UNLOCK
#define KEEPS_NOTHING false
#else
#define KEEPS_NOTHING true
#endif
/* The left anchor has nothing more to do. */
inline over(r, event, state) {
    MARK(ROLE_LEFT, left[r], event, state);
    left[r] = state;
    tries[r] = 0;
    ended[LEFT(r)] = ended[LEFT(r)] | BIT(r);
    if
    :: holder[LEFT(r)] == r && KEEPS_NOTHING -> free(LEFT(r), E_OVER, U_UNLOCKED)
    :: else
    fi
}

inline go_cancelling(r, event) {
    MARK(ROLE_LEFT, left[r], event, L_CANCELLING);
    left[r] = L_CANCELLING;
    tries[r] = 0;
    send_right(CANCEL, r, LEFT(r))
}

#define ACTIVE(q) (right[q] == R_LOCKED || right[q] == R_DRAINED)
#define RIGHT_BUSY(r, a) \
    (((r) != 0 && RIGHT(0) == a && ACTIVE(0)) || \
     (R > 1 && (r) != 1 && RIGHT(1) == a && ACTIVE(1 % R)) || \
     (R > 2 && (r) != 2 && RIGHT(2) == a && ACTIVE(2 % R)))

/* Member._as_right_anchor. */
inline request_at_right(r, a, from) {
    if
    :: lock[a] == U_GONE -> send(NACK_LOCK, r, from)
    :: lock[a] != U_GONE && OVER_BY(r, ended_right[a])
    :: else ->
        if
        :: right[r] == R_NONE ->
            if
            :: RIGHT_BUSY(r, a) -> send(NACK_LOCK, r, from)
            :: else ->
                MARK(ROLE_RIGHT, R_NONE, E_REQUEST, R_LOCKED);
                right[r] = R_LOCKED;
                send(ACK_LOCK, r, from)
            fi
        :: right[r] == R_LOCKED || right[r] == R_DRAINED -> send(ACK_LOCK, r, from)
        :: else
        fi
    fi
}
/* A request that is over keeps its way: its end must reach every hop that it did. */
#ifdef BUG_ROUTE
#define TURNS_ROUTE(r, a) true
#else
#define TURNS_ROUTE(r, a) (!OVER_BY(r, ended[a]))
#endif
inline take_request(r, a) {
    from = via[(r) * N + (a)];
    if
    :: holder[a] != r && TURNS_ROUTE(r, a) -> remember(r, a, from)
    :: else
    fi;
    if
    :: RIGHT(r) == a -> request_at_right(r, a, from)
    :: RIGHT(r) != a && (way_right[(r) * N + (a)] == NOBODY || RIGHT_BUSY(r, a)) ->
        send(NACK_LOCK, r, from)
    :: else -> ask(r, a)
    fi;
    from = NOBODY
}

inline take_ack_lock(r, a) {
    if
    :: holder[a] == r ->
        if
        :: lock[a] != U_LOCKED -> MARK(ROLE_LOCK, lock[a], E_ACK_LOCK, U_LOCKED)
        :: else
        fi;
        lock[a] = U_LOCKED;
        refuse_parked(a);
        if
        :: LEFT(r) == a ->
            if
            :: left[r] == L_LOCKING ->
                MARK(ROLE_LEFT, L_LOCKING, E_ACK_LOCK, L_CONNECTING);
                left[r] = L_CONNECTING;
                tries[r] = 0
            :: else
            fi
        :: else -> send_left(ACK_LOCK, r, a)
        fi
    :: else
    fi
}

inline take_nack_lock(r, a) {
    if
    :: holder[a] == r && lock[a] == U_PENDING ->
        if
        :: LEFT(r) != a -> send_left(NACK_LOCK, r, a)
        :: else
        fi;
        free(a, E_NACK_LOCK, U_UNLOCKED)
    :: else
    fi;
    if
#ifdef BUG_NACK_ENDS
    :: LEFT(r) == a && left[r] == L_LOCKING -> over(r, E_NACK_LOCK, L_FAILED)
#else
    :: LEFT(r) == a && left[r] == L_LOCKING -> go_cancelling(r, E_NACK_LOCK)
#endif
    :: else
    fi
}

/* Lock.end: on its way to the right; an agent that is left out closes its connections. */
inline end_at_lock(r, a, kind, event, becomes) {
#ifndef BUG_FORGET
    ended[a] = ended[a] | BIT(r);
#endif
    send_right(kind, r, a);
    if
    :: parked[a] == r -> parked[a] = NONE
    :: else
    fi;
    if
    :: holder[a] == r -> free(a, event, (LEFT(r) == a -> U_UNLOCKED : becomes))
    :: else
    fi
}

inline route_if_none(r, a) {
    if
    :: way_left[(r) * N + (a)] == NOBODY && LEFT(r) != a -> remember(r, a, via[(r) * N + (a)])
    :: else
    fi
}

inline take_cancel(r, a) {
    route_if_none(r, a);
    if
    :: RIGHT(r) == a ->
        ended_right[a] = ended_right[a] | BIT(r);
        if
        :: right[r] == R_LOCKED ->
            MARK(ROLE_RIGHT, R_LOCKED, E_CANCEL_LOCK, R_CANCELLED);
            right[r] = R_CANCELLED
        :: else
        fi;
        send_left(ACK_CANCEL, r, a)
    :: RIGHT(r) != a && way_right[(r) * N + (a)] == NOBODY -> send_left(ACK_CANCEL, r, a)
    :: else -> end_at_lock(r, a, CANCEL, E_CANCEL_LOCK, U_UNLOCKED)
    fi
}

inline take_release(r, a) {
    route_if_none(r, a);
    if
    :: RIGHT(r) == a ->
        ended_right[a] = ended_right[a] | BIT(r);
        if
        :: right[r] == R_DRAINED ->
            MARK(ROLE_RIGHT, R_DRAINED, E_RELEASE, R_FINISHED);
            right[r] = R_FINISHED;
            next_left[a] = LEFT(r)
        :: else
        fi;
        send_left(ACK_RELEASE, r, a)
    :: RIGHT(r) != a && way_right[(r) * N + (a)] == NOBODY -> send_left(ACK_RELEASE, r, a)
    :: else -> end_at_lock(r, a, RELEASE, E_RELEASE, U_GONE)
    fi
}

inline take_answer(r, a, kind, awaited, event, becomes) {
    if
    :: LEFT(r) != a -> send_left(kind, r, a)
    :: LEFT(r) == a && kind == ACK_RELEASE && left[r] == L_CANCELLING -> over(r, event, L_FAILED)
    :: LEFT(r) == a && left[r] == awaited -> over(r, event, becomes)
    :: else
    fi
}

inline deliver(k, r, a) {
    if
    :: k == REQUEST -> take_request(r, a)
    :: k == ACK_LOCK -> take_ack_lock(r, a)
    :: k == NACK_LOCK -> take_nack_lock(r, a)
    :: k == CANCEL -> take_cancel(r, a)
    :: k == ACK_CANCEL -> take_answer(r, a, ACK_CANCEL, L_CANCELLING, E_ACK_CANCEL, L_FAILED)
    :: k == RELEASE -> take_release(r, a)
    :: k == ACK_RELEASE -> take_answer(r, a, ACK_RELEASE, L_RELEASING, E_ACK_RELEASE, L_FINISHED)
    fi
}

/* What the protocol promises while it runs. */
inline check() {
    byte q;
    q = 0;
    do
    :: q < R ->
        /* Who changes a session's path holds every lock of its segment, and nobody else does. */
        if
        :: left[q] == L_CONNECTING && !over_session ->
            assert(lock[LEFT(q)] == U_LOCKED && holder[LEFT(q)] == q);
            at = next_right[LEFT(q)];
            do
            :: at != RIGHT(q) && at != NOBODY ->
                assert(lock[at] == U_LOCKED && holder[at] == q);
                at = next_right[at]
            :: else -> break
            od;
            assert(at == RIGHT(q));
            assert(right[q] == R_LOCKED || right[q] == R_DRAINED);
            at = NOBODY
        :: else
        fi;
        assert(tries[q] <= TRIES);
        q++
    :: else -> break
    od;
    q = 0
}

/* And when all is quiet. */
inline check_end() {
    byte q, won;
    won = 0;
    q = 0;
    do
    :: q < R ->
        assert(left[q] == L_FINISHED || left[q] == L_FAILED || (over_session && left[q] == L_NONE));
        /* Both anchors agree. */
        assert(over_session || left[q] != L_FINISHED || right[q] == R_FINISHED);
        assert(over_session || left[q] != L_FAILED || right[q] == R_NONE || right[q] == R_CANCELLED);
        assert(!ACTIVE(q));
        if
        :: left[q] == L_FINISHED || why_failed[q] || over_session -> won = 1
        :: else
        fi;
        q++
    :: else -> break
    od;
    /* Of those that compete at least one wins, if none gives up by itself. */
    assert(won);
    q = 0;
    do
    :: q < N ->
        assert(lock[q] == U_UNLOCKED || lock[q] == U_GONE);
        assert(holder[q] == NONE && parked[q] == NONE);
        q++
    :: else -> break
    od
}

#define ONE(k, r) \
    :: d_step { UNDER_WAY(k, r, me) -> \
        net[(k) * R + (r)] = net[(k) * R + (r)] & ~BIT(me); deliver(k, r, me); check() } \
    :: d_step { UNDER_WAY(k, r, me) && repeats > 0 -> \
        repeats--; deliver(k, r, me); check() } \
    :: d_step { UNDER_WAY(k, r, me) && losses > 0 -> \
        losses--; net[(k) * R + (r)] = net[(k) * R + (r)] & ~BIT(me) }

#define ALL(r) \
    ONE(REQUEST, r) ONE(ACK_LOCK, r) ONE(NACK_LOCK, r) ONE(CANCEL, r) \
    ONE(ACK_CANCEL, r) ONE(RELEASE, r) ONE(ACK_RELEASE, r)

proctype Agent(byte me) {
end:
    do
    ALL(0)
#if R > 1
    ALL(1)
#endif
#if R > 2
    ALL(2)
#endif
    od
}

#define IS_PARKED(r) (parked[0] == r || parked[1 % N] == r || parked[2 % N] == r || \
    parked[3 % N] == r || parked[4 % N] == r)
#define REPEATED(r) \
    (left[r] == L_LOCKING -> REQUEST : (left[r] == L_CANCELLING && !told[r] -> CANCEL : RELEASE))

/* A left anchor's own decisions: the operator's word, its timers, and what paths.pml does. */
proctype Anchor(byte r) {
    /* One reconfiguration of an anchor at a time, and only if its lock is free (Member.request). */
    if
    :: over_session -> goto end
    :: d_step { lock[LEFT(r)] == U_UNLOCKED && !over_session ->
        MARK(ROLE_LEFT, L_NONE, E_START, L_LOCKING);
        left[r] = L_LOCKING;
        remember(r, LEFT(r), NOBODY);
        ask(r, LEFT(r));
        check() }
    :: d_step { lock[LEFT(r)] != U_UNLOCKED ->
        left[r] = L_FAILED;
        why_failed[r] = (lock[LEFT(r)] == U_GONE || holder[LEFT(r)] == NONE) }
    fi;
end:
    do
    /* Said again. */
    :: d_step { QUIET(r) && !IS_PARKED(r) && (left[r] == L_LOCKING && tries[r] < TRIES ||
                             left[r] == L_CANCELLING || left[r] == L_RELEASING) ->
        tries[r]++;
        send_right(REPEATED(r), r, LEFT(r));
        check() }
    /* Given up: out of patience, refused by the new path, or the session ended. */
    :: d_step { GIVE_UP && (left[r] == L_LOCKING || (left[r] == L_CONNECTING && right[r] == R_LOCKED)) ->
        why_failed[r] = 1;
        go_cancelling(r, E_CANCEL);
        check() }
    /* The session ended, and both anchors hear of it, at different times. */
    :: d_step { over_session && !told[r] &&
                (left[r] == L_LOCKING || left[r] == L_CONNECTING || left[r] == L_CANCELLING) ->
        if
        :: left[r] != L_CANCELLING -> MARK(ROLE_LEFT, left[r], E_SESSION_OVER, L_CANCELLING)
        :: else
        fi;
        left[r] = L_CANCELLING;
        told[r] = true;
        why_failed[r] = 1;
        tries[r] = 0;
        send_right(RELEASE, r, LEFT(r));
        check() }
    :: d_step { over_session && ACTIVE(r) ->
        MARK(ROLE_RIGHT, right[r], E_SESSION_OVER, R_CANCELLED);
        right[r] = R_CANCELLED;
        check() }
    /* The new path has taken over: both sides are drained, which only the right anchor can tell. */
    :: d_step { left[r] == L_CONNECTING && right[r] == R_LOCKED -> right[r] = R_DRAINED; check() }
    :: d_step { left[r] == L_CONNECTING && right[r] == R_DRAINED ->
        left[r] = L_RELEASING;
        tries[r] = 0;
        next_right[LEFT(r)] = RIGHT(r);
        send_right(RELEASE, r, LEFT(r));
        check() }
    :: d_step { ENDS && !over_session && left[r] != L_NONE -> over_session = true }
    :: (left[r] == L_FINISHED || left[r] == L_FAILED) && !ACTIVE(r) -> break
    od
}

init {
    byte i = 0;
    d_step {
        do
        :: i < N ->
            next_left[i] = (i > 0 -> i - 1 : NOBODY);
            next_right[i] = (i < N - 1 -> i + 1 : NOBODY);
            i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < R * N ->
            via[i] = NOBODY;
            way_left[i] = NOBODY;
            way_right[i] = NOBODY;
            i++
        :: else -> i = 0; break
        od
    }
    atomic {
        do
        :: i < N -> run Agent(i); i++
        :: else -> i = 0; break
        od;
        do
        :: i < R -> run Anchor(i); i++
        :: else -> break
        od
    }
    timeout;
    d_step { check_end() }
}
