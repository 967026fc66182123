/*
 * One session while its path changes: data, the handshake of the new path, cutoffs, drain, release.
 *
 *     host 0 == left anchor ===== old path: direct, through a box, or a proxy ===== right anchor == host 1
 *                      \\======== new path: boxes that see a TCP connection open ========//
 *
 * The code beside it is dysco/agent/reconfigure: handover, departure and arrival (per packet), left and
 * right (the anchors). Locks along the chain are locking.pml's: here a request goes from anchor to
 * anchor. docs/verification.md says what is abstracted away, and why that is sound.
 *
 * The network is a set: what was put in stays, and arrives any number of times, in any order, or never.
 * A message is put in by a step of its own, which need not be taken: so it may be lost. A byte stands for
 * its own value: `sent[path, host]` has a bit for each. Steps that would change nothing are not enabled;
 * so a run ends when nothing is left to do, and then everything must be over and all bytes delivered.
 *
 * Numbers are modulo 16 and compared by their difference (RFC 1982); windows are below 8.
 */

#include "states.pml"           /* from model/table.py */

#ifndef BYTES0
#define BYTES0 2                /* that host 0 sends before its FIN */
#endif
#ifndef BYTES1
#define BYTES1 1
#endif
#ifndef TURNS
#define TURNS 1                 /* reconfigurations, one after the other */
#endif
#ifndef START
#define START 0                 /* the first byte's number; 14: they wrap */
#endif
#ifndef PROXY
#define PROXY 0                 /* the old path's box acknowledges before it delivers */
#endif
#ifndef BOX
#define BOX 0                   /* host 0 is a box: a FIN may come by before the last byte */
#endif
#ifndef DEATHS
#define DEATHS 0                /* of a new box */
#endif
#ifndef REFUSES
#define REFUSES 0               /* the new box may refuse the connection */
#endif
#ifndef CRASHES
#define CRASHES 0               /* of an agent, between its journal and what it was about to do */
#endif
#ifndef RESETS
#define RESETS 0                /* one host aborts */
#endif
#ifndef LEASES
#define LEASES 0                /* the right anchor has not heard of the left one for too long */
#endif

#define HALF 8
#define NEXT(a)       (((a) + 1) & 15)
#ifdef BUG_WRAP
#define REACHED(a, b) ((a) >= (b))
#else
#define REACHED(a, b) ((((a) - (b)) & 15) < HALF)
#endif
#define BEYOND(a, b)  (REACHED(a, b) && (a) != (b))
#define LATER(a, b)   (REACHED(a, b) -> (a) : (b))
#define EARLIER(a, b) (REACHED(a, b) -> (b) : (a))
#define NUMBER(i)     (((i) + START) & 15)
#define ID(a)         (((a) - START) & 15)
#define BIT(i)        (1 << (i))
#define NONE          255
#define NOWHERE       3

#define BYTES(x)  ((x) == 0 -> BYTES0 : BYTES1)
#define ALL(x)    (got[(x) * 3] | got[(x) * 3 + 1] | got[(x) * 3 + 2])
#define WHOLE(x)  (BIT(BYTES(1 - (x)) + 1) - 1)

/* Hosts. */
byte top[2] = START;            /* one past the highest byte sent */
bool fin[2];                    /* its FIN was sent: as byte BYTES */
byte una[2] = START;            /* what it was told that the other has */
byte acked[2] = START;          /* what it has acknowledged */
byte got[6];                    /* bytes, by the path by which they came first */

/* Data planes: an entry (way, neu, and the settled way's cutoffs) and registers. */
byte way[2];
byte neu[2];                    /* 0: none; else the path, which is the epoch too */
byte latched[2];
byte known[2];
byte cout[2];
byte cin[2];
byte wout[2] = START;
byte win[2] = START;
byte revoked;                   /* the right one's */

/* Paths. */
byte sent[6];                   /* [path * 2 + sender]: bytes that are under way on it */
byte heard[6] = START;          /* [path * 2 + sender]: how far its bytes are acknowledged on it */
byte base[6] = NONE;            /* which byte travels as ISN + 1 */
byte hbase[6] = NONE;           /* which one the acknowledging side takes for it */
byte taken[2] = START;          /* by the proxy, from each host */
byte passed[2];                 /* bytes that the proxy has sent on */
byte closed;                    /* paths */
byte dead;

/* Anchors. */
byte left = L_NONE;
byte right = R_NONE;
byte turn;                      /* the left one's reconfiguration, and the right one's */
byte rturn;
bool todo[2];                   /* in the journal, and not yet in the table */
bool drained_there;
byte former;                    /* the old path of this turn */
byte cut[6];                    /* [turn * 2 + anchor]: as announced */
short net[3];                   /* messages that were sent, by turn */
bool why;                       /* there is a reason to fail */

byte deaths = DEATHS;
byte crashes = CRASHES;
byte leases = LEASES;
bool reset;
bool ended;                     /* the left anchor knows that the session was reset */
bool stranded;                  /* a new box died when there was no way back */

/* Scratch, always 0 between steps. */
byte p;
byte a;

#define REQUEST      0
#define ACK_LOCK     1
#define SYN          2
#define SYN_ACK      3
#define OPEN_ACK     4
#define OPEN         5
#define REFUSED      6
#define ANNOUNCE0    7
#define ANNOUNCE1    8
#define ASK_REVOKE   9
#define REVOKED      10
#define DRAINED      11
#define CANCEL       12
#define ACK_CANCEL   13
#define RELEASE      14
#define ACK_RELEASE  15
#define HAS(t, m)    (net[t] & BIT(m))
#define PUT(t, m)    net[t] = net[t] | BIT(m)

#define GO_LEFT(event, to)  MARK(ROLE_LEFT, left, event, to); left = to
#define GO_RIGHT(event, to) MARK(ROLE_RIGHT, right, event, to); right = to

#define SWITCHING(x) (neu[x] && latched[x] == neu[x])
#define KNOWS(x)     (known[x] == neu[x])
#ifdef BUG_DRAIN
#define HAS_DRAINED(x) (SWITCHING(x) && KNOWS(x) && REACHED(una[x], cout[x]))
#else
#define HAS_DRAINED(x) \
    (SWITCHING(x) && KNOWS(x) && REACHED(una[x], cout[x]) && REACHED(acked[x], cin[x]))
#endif
#define REALLY_DRAINED(x) \
    (SWITCHING(x) && KNOWS(x) && REACHED(una[x], cout[x]) && REACHED(acked[x], cin[x]))
#define L_OVER (left == L_NONE || left == L_FINISHED || left == L_FAILED)
#define R_OVER (right == R_NONE || right == R_FINISHED || right == R_CANCELLED)

/* departure: where a byte goes. A late one of the path before is answered by the anchor. */
#ifdef BUG_FLOOR
#define ROUTE(x, n) (SWITCHING(x) -> (REACHED(n, cout[x]) -> neu[x] : way[x]) : way[x])
#else
#define ROUTE(x, n) \
    (SWITCHING(x) -> (REACHED(n, cout[x]) -> neu[x] : way[x]) \
                   : (REACHED(n, wout[x]) -> way[x] : NOWHERE))
#endif
#define OPENS(x) (SWITCHING(x) && p == neu[x] -> cout[x] : wout[x])

/* A host sends a byte, for the first time or again: what it was told about is not sent any more. */
#define UNTOLD(x, i) \
    ((REACHED(NUMBER(i), una[x]) && BEYOND(top[x], NUMBER(i))) || \
     ((i) == BYTES(x) && fin[x] && REACHED(NUMBER(i), una[x])))
#define CARRIED(x, i) (ROUTE(x, NUMBER(i)) != NOWHERE && \
    !(sent[ROUTE(x, NUMBER(i)) * 2 + (x)] & BIT(i)) && !((closed | dead) & BIT(ROUTE(x, NUMBER(i)))))
/* It may have sent one again before it was told: that one must not get below the new path's ISN + 1. */
#define LATE(x, i) (!SWITCHING(x) && BEYOND(top[x], NUMBER(i)) && \
    ROUTE(x, NUMBER(i)) != NOWHERE && BEYOND(wout[x], NUMBER(i)))
#define TRANSMIT(x, i) \
    :: d_step { !reset && (UNTOLD(x, i) || LATE(x, i)) && CARRIED(x, i) -> \
        p = ROUTE(x, NUMBER(i)); \
        assert(base[p * 2 + (x)] == NONE || base[p * 2 + (x)] == OPENS(x)); \
        base[p * 2 + (x)] = OPENS(x); \
        assert(REACHED(NUMBER(i), base[p * 2 + (x)]));  /* nothing below ISN + 1 */ \
        sent[p * 2 + (x)] = sent[p * 2 + (x)] | BIT(i); \
        p = 0 }
#define WRITE(x) \
    :: d_step { !reset && ID(top[x]) < BYTES(x) && !(fin[x] && !BOX) -> top[x] = NEXT(top[x]) } \
    :: d_step { !reset && !fin[x] && (ID(top[x]) == BYTES(x) || (BOX && (x) == 0)) -> fin[x] = true }

/* An ACK goes onto a path: of nothing that did not come by that path. */
#define BEGINS(x) (SWITCHING(x) && p == neu[x] -> cin[x] : win[x])
inline acknowledge(x) {
    assert(!((BIT(ID(a)) - 1) & ~(BIT(ID(BEGINS(x))) - 1) & ~got[(x) * 3 + p]));
    assert(hbase[p * 2 + 1 - (x)] == NONE || hbase[p * 2 + 1 - (x)] == BEGINS(x));
    hbase[p * 2 + 1 - (x)] = BEGINS(x);
    if
    :: !((closed | dead) & BIT(p)) -> heard[p * 2 + 1 - (x)] = LATER(a, heard[p * 2 + 1 - (x)])
    :: else
    fi
}

/* The host acknowledges one byte more. The ACK may be lost; it comes again with a repeated byte. */
#define DUE(x) (!reset && (ALL(x) & BIT(ID(acked[x]))))
#ifdef BUG_ACK_PATH
#define ACKS_NEW(x) false
#else
#define ACKS_NEW(x) (SWITCHING(x) && KNOWS(x) && REACHED(acked[x], cin[x]))
#endif
#define ACK_ONE(x) \
    :: d_step { DUE(x) -> acked[x] = NEXT(acked[x]) } \
    :: d_step { DUE(x) -> \
        acked[x] = NEXT(acked[x]); \
        if \
        :: ACKS_NEW(x) -> \
            p = neu[x]; a = acked[x]; acknowledge(x); \
            if \
            :: acked[x] == cin[x] -> p = way[x]; a = cin[x]; acknowledge(x) \
            :: else \
            fi \
        :: else -> p = way[x]; a = acked[x]; acknowledge(x) \
        fi; \
        p = 0; a = 0 }

/* arrival: a byte comes for host x by path q. */
#define CAME(x, q, i) ((PROXY && (q) == 0 -> passed[1 - (x)] : sent[(q) * 2 + 1 - (x)]) & BIT(i))
#ifdef BUG_EARLY
#define BY_NEW(x, q)  (SWITCHING(x) && (q) == neu[x])
#else
#define BY_NEW(x, q)  (SWITCHING(x) && (q) == neu[x] && KNOWS(x))
#endif
#define BY_OLD(x, q)  ((q) == way[x])
#define KEEPS(x, i)   (!SWITCHING(x) || !KNOWS(x) || \
                       (!REACHED(acked[x], cin[x]) && !REACHED(NUMBER(i), cin[x])))
#define TAKES(x, q, i) (!(ALL(x) & BIT(i)) && (BY_NEW(x, q) || (BY_OLD(x, q) && KEEPS(x, i))))
/* What a byte that the host has already makes it, or the anchor, say on that path. */
#define SAYS_OLD(x)    (SWITCHING(x) && KNOWS(x) -> EARLIER(acked[x], cin[x]) : acked[x])
#define ECHOES(x, q) \
    ((BY_NEW(x, q) && REACHED(acked[x], cin[x]) && BEYOND(acked[x], heard[(q) * 2 + 1 - (x)])) || \
     (BY_OLD(x, q) && BEYOND(SAYS_OLD(x), heard[(q) * 2 + 1 - (x)])))
#define ARRIVE(x, q, i) \
    :: d_step { !reset && CAME(x, q, i) && TAKES(x, q, i) -> \
        p = q; \
        /* Its number, as the sender translated it and as this side translates it back. */ \
        assert(((NUMBER(i) - base[(q) * 2 + 1 - (x)] + BEGINS(x)) & 15) == NUMBER(i)); \
        got[(x) * 3 + (q)] = got[(x) * 3 + (q)] | BIT(i); \
        stale(x, q); \
        p = 0 } \
    :: d_step { !reset && CAME(x, q, i) && !TAKES(x, q, i) && ECHOES(x, q) && \
                !((closed | dead) & BIT(q)) -> \
        p = q; a = (BY_NEW(x, q) -> acked[x] : SAYS_OLD(x)); \
        acknowledge(x); \
        p = 0; a = 0 }
inline stale(x, q) {
#ifdef BUG_STALE
    if
    :: BY_NEW(x, q) -> una[x] = LATER(una[x], cout[x])
    :: else
    fi
#else
    skip
#endif
}

/* An ACK comes for host x by path q, for one byte more. */
#define ACKED_BY(x, q) (PROXY && (q) == 0 -> taken[x] : heard[(q) * 2 + (x)])
#define ACK_NEW(x, q)  (SWITCHING(x) && (q) == neu[x] && KNOWS(x) && \
                        BEYOND(ACKED_BY(x, q), LATER(una[x], cout[x])))
#define CLAMPED(x, n)  (SWITCHING(x) -> EARLIER(n, cout[x]) : (n))
#define ACK_OLD(x, q)  ((q) == way[x] && BEYOND(CLAMPED(x, ACKED_BY(x, q)), una[x]))
#define ACK_COMES(x, q) \
    :: d_step { !reset && (ACK_NEW(x, q) || ACK_OLD(x, q)) -> \
        p = q; \
        assert((PROXY && (q) == 0) || hbase[(q) * 2 + (x)] == OPENS(x)); \
        una[x] = NEXT((ACK_NEW(x, q) -> LATER(una[x], cout[x]) : una[x])); \
        /* Of nothing that the host has not sent. */ \
        assert(REACHED(top[x], una[x]) || (fin[x] && ID(una[x]) == BYTES(x) + 1)); \
        p = 0 }

/* The proxy takes bytes in order, acknowledges them, and sends them on until the path is closed. */
#define RELAY(x) \
    :: d_step { PROXY && !reset && !(closed & 1) && (sent[x] & BIT(ID(taken[x]))) -> \
        taken[x] = NEXT(taken[x]) }
#define RELAY_ON(x, i) \
    :: d_step { PROXY && !reset && !(closed & 1) && BEYOND(taken[x], NUMBER(i)) && \
                !(passed[x] & BIT(i)) -> passed[x] = passed[x] | BIT(i) }

/* handover, left.settled, left.withdrawn: one table write. */
inline settle(x, t) {
    assert(known[x] == t && latched[x] == t && neu[x] == t);
    way[x] = t;
    wout[x] = cout[x];
    win[x] = cin[x];
    neu[x] = 0;
    todo[x] = false
}
inline withdraw(x) {
    neu[x] = 0;
    todo[x] = false
}
inline go_back(event) {
    GO_LEFT(event, L_CANCELLING);
    why = true;
    todo[0] = (neu[0] == turn)
}
inline latch(x, t) {
#ifdef BUG_CUTOFF
    cout[x] = (top[x] + 15) & 15;
#else
    cout[x] = top[x];
#endif
    latched[x] = t
}

#ifdef BUG_FIN
#define CLOSING(x) false
#else
#define CLOSING(x) fin[x]
#endif
#ifdef BUG_REVOKE
#define MAY_REVOKE true
#else
#define MAY_REVOKE (latched[1] != rturn)
#endif
#ifdef BUG_RELEASE
#define BOTH_DRAINED HAS_DRAINED(0)
#else
#define BOTH_DRAINED (HAS_DRAINED(0) && drained_there)
#endif
#ifdef BUG_BACK_ALONE
#define MAY_GIVE_UP (left == L_LOCKING || left == L_CONNECTING || left == L_SWITCHING)
#else
#define MAY_GIVE_UP (left == L_LOCKING || left == L_CONNECTING)
#endif
#ifdef BUG_TOKEN
#define FOR_NEW(x, t) neu[x]
#else
#define FOR_NEW(x, t) (neu[x] == (t))
#endif

#define LEFT_ANCHOR \
    /* Member.request: the one before is over. */ \
    :: d_step { L_OVER && turn < TURNS && !reset && !todo[0] -> \
        turn++; left = L_NONE; GO_LEFT(E_START, L_LOCKING); former = way[0]; drained_there = false; why = false; \
        PUT(turn, REQUEST) } \
    :: d_step { left == L_LOCKING && HAS(turn, ACK_LOCK) && !fin[0] -> \
        GO_LEFT(E_ACK_LOCK, L_CONNECTING); PUT(turn, SYN) } \
    :: d_step { left == L_LOCKING && HAS(turn, ACK_LOCK) && fin[0] -> go_back(E_ACK_LOCK) } \
    :: d_step { MAY_GIVE_UP -> go_back(E_CANCEL) } \
    :: d_step { left == L_CONNECTING && HAS(turn, REFUSED) -> go_back(E_REFUSED) } \
    :: d_step { left == L_CONNECTING && HAS(turn, SYN_ACK) && neu[0] != turn && !(dead & BIT(turn)) -> \
        neu[0] = turn; PUT(turn, OPEN_ACK) } \
    :: d_step { left == L_CONNECTING && neu[0] == turn && HAS(turn, OPEN) && !(dead & BIT(turn)) -> \
        GO_LEFT(E_OPEN, L_SWITCHING); PUT(turn, ASK_REVOKE) } \
    :: d_step { left == L_SWITCHING && latched[0] != turn && !CLOSING(0) -> latch(0, turn) } \
    :: d_step { left == L_SWITCHING && latched[0] != turn && CLOSING(0) -> go_back(E_CLOSING) } \
    :: d_step { left == L_SWITCHING && latched[0] == turn && !HAS(turn, ANNOUNCE0) -> \
        cut[turn * 2] = cout[0]; PUT(turn, ANNOUNCE0) } \
    :: d_step { left == L_SWITCHING && HAS(turn, REVOKED) -> go_back(E_REVOKED) } \
    :: d_step { left == L_SWITCHING && neu[0] == turn && known[0] == turn -> \
        GO_LEFT(E_ANNOUNCED, L_DRAINING) } \
    :: d_step { (left == L_SWITCHING || left == L_DRAINING) && HAS(turn, DRAINED) && !drained_there -> \
        drained_there = true } \
    :: d_step { left == L_DRAINING && BOTH_DRAINED -> \
        GO_LEFT(E_DRAINED, L_RELEASING); todo[0] = true } \
    :: d_step { left == L_RELEASING && todo[0] -> settle(0, turn) } \
    :: d_step { left == L_CANCELLING && todo[0] -> withdraw(0) } \
    :: d_step { left == L_RELEASING && !todo[0] && !HAS(turn, RELEASE) -> PUT(turn, RELEASE) } \
    :: d_step { left == L_CANCELLING && !todo[0] && !ended && !HAS(turn, CANCEL) -> PUT(turn, CANCEL) } \
    :: d_step { left == L_CANCELLING && !todo[0] && ended && !HAS(turn, RELEASE) -> PUT(turn, RELEASE) } \
    :: d_step { left == L_RELEASING && HAS(turn, ACK_RELEASE) -> GO_LEFT(E_ACK_RELEASE, L_FINISHED) } \
    :: d_step { left == L_CANCELLING && HAS(turn, ACK_CANCEL) -> GO_LEFT(E_ACK_CANCEL, L_FAILED) } \
    :: d_step { left == L_CANCELLING && HAS(turn, ACK_RELEASE) -> GO_LEFT(E_ACK_RELEASE, L_FAILED) } \
    :: d_step { reset && !L_OVER && left != L_CANCELLING && left != L_RELEASING -> \
        GO_LEFT(E_SESSION_OVER, L_CANCELLING); todo[0] = false; ended = true } \
    :: d_step { reset && left == L_CANCELLING && !ended -> todo[0] = false; ended = true }

/* The agents on the old path are told of its end, and what they remove resets its connections. */
#define OLD_PATH \
    :: d_step { turn && HAS(turn, RELEASE) && !(closed & BIT(former)) -> \
        closed = closed | BIT(former); \
        assert(reset || way[0] != former || REALLY_DRAINED(0)); \
        assert(reset || way[1] != former || REALLY_DRAINED(1)) }

#ifdef BUG_LATE_REQUEST
#define NEW_AT_RIGHT(t) (rturn <= (t) && R_OVER)
#else
#define NEW_AT_RIGHT(t) (rturn < (t) && R_OVER)
#endif
#define RIGHT_ANCHOR(t) \
    :: d_step { HAS(t, REQUEST) && NEW_AT_RIGHT(t) -> right = R_NONE; GO_RIGHT(E_REQUEST, R_LOCKED); rturn = t; \
        PUT(t, ACK_LOCK) } \
    :: d_step { HAS(t, SYN) && !(dead & BIT(t)) && rturn == t && right == R_LOCKED -> \
        GO_RIGHT(E_SYN, R_PREPARED); \
        if \
        :: CRASHES -> todo[1] = true \
        :: else -> neu[1] = t; PUT(t, SYN_ACK) \
        fi; \
        p = 0 } \
    :: d_step { right == R_PREPARED && rturn == t && todo[1] -> \
        neu[1] = t; todo[1] = false; PUT(t, SYN_ACK) } \
    :: d_step { right == R_PREPARED && rturn == t && neu[1] == t && HAS(t, OPEN_ACK) && \
                !(dead & BIT(t)) && !HAS(t, OPEN) -> PUT(t, OPEN) } \
    :: d_step { REFUSES && HAS(t, SYN) && right == R_LOCKED && !HAS(t, REFUSED) -> \
        PUT(t, REFUSED); dead = dead | BIT(t) } \
    /* The left announcement at the right data plane: it latches, or can't. */ \
    :: d_step { HAS(t, ANNOUNCE0) && FOR_NEW(1, t) && revoked != t && latched[1] != neu[1] && \
                CLOSING(1) && right == R_PREPARED -> \
        revoked = t } \
    :: d_step { HAS(t, ANNOUNCE0) && FOR_NEW(1, t) && revoked != t && \
                !(latched[1] != neu[1] && CLOSING(1)) && \
                (known[1] != neu[1] || !HAS(t, ANNOUNCE1)) -> \
        if \
        :: latched[1] != neu[1] -> latch(1, neu[1]) \
        :: else \
        fi; \
        known[1] = neu[1]; cin[1] = cut[(t) * 2]; \
        cut[(t) * 2 + 1] = cout[1]; PUT(t, ANNOUNCE1) } \
    :: d_step { HAS(t, ANNOUNCE1) && FOR_NEW(0, t) && known[0] != neu[0] && latched[0] == neu[0] -> \
        known[0] = neu[0]; cin[0] = cut[(t) * 2 + 1] } \
    :: d_step { right == R_PREPARED && rturn == t && neu[1] == t && latched[1] == t -> \
        GO_RIGHT(E_ANNOUNCED, R_DRAINING) } \
    /* Asked to go back, or not spoken to for too long. */ \
    :: d_step { HAS(t, ASK_REVOKE) && rturn == t && right == R_LOCKED -> GO_RIGHT(E_ASK_REVOKE, R_REVOKED) } \
    :: d_step { HAS(t, ASK_REVOKE) && rturn == t && right == R_PREPARED && neu[1] == t && MAY_REVOKE && \
                revoked != t -> revoked = t } \
    :: d_step { right == R_PREPARED && rturn == t && revoked == t -> GO_RIGHT(E_REVOKED, R_REVOKED) } \
    :: d_step { right == R_REVOKED && rturn == t && !HAS(t, REVOKED) -> PUT(t, REVOKED) } \
    :: d_step { leases > 0 && rturn == t && (right == R_LOCKED || right == R_REVOKED) -> \
        leases--; GO_RIGHT(E_FORSAKEN, R_CANCELLED); todo[1] = (neu[1] == t) } \
    :: d_step { leases > 0 && rturn == t && right == R_PREPARED && neu[1] == t && MAY_REVOKE && \
                revoked != t -> revoked = t } \
    :: d_step { right == R_CANCELLED && rturn == t && HAS(t, ASK_REVOKE) && !HAS(t, REVOKED) && \
                ANSWERS_LATE -> PUT(t, REVOKED) } \
    :: d_step { rturn == t && right == R_DRAINING && HAS_DRAINED(1) -> GO_RIGHT(E_DRAINED, R_DRAINED) } \
    :: d_step { rturn == t && right == R_DRAINED && !HAS(t, DRAINED) -> PUT(t, DRAINED) } \
    :: d_step { HAS(t, CANCEL) && rturn < t && R_OVER -> rturn = t; right = R_CANCELLED } \
    :: d_step { HAS(t, CANCEL) && rturn == t && !R_OVER -> \
        assert(reset || latched[1] != t); \
        GO_RIGHT(E_CANCEL_LOCK, R_CANCELLED); todo[1] = (neu[1] == t) } \
    :: d_step { HAS(t, CANCEL) && rturn == t && R_OVER && !todo[1] && !HAS(t, ACK_CANCEL) -> \
        PUT(t, ACK_CANCEL) } \
    :: d_step { HAS(t, RELEASE) && (closed & BIT(former)) && rturn == t && \
                (right == R_DRAINED || right == R_DRAINING) -> \
        GO_RIGHT(E_RELEASE, R_FINISHED); todo[1] = true } \
    :: d_step { HAS(t, RELEASE) && (closed & BIT(former)) && rturn == t && !todo[1] && \
                (R_OVER || reset) && !HAS(t, ACK_RELEASE) -> PUT(t, ACK_RELEASE) } \
    :: d_step { rturn == t && right == R_FINISHED && todo[1] -> settle(1, t) } \
    :: d_step { rturn == t && right == R_CANCELLED && todo[1] -> withdraw(1) }
#ifdef BUG_SILENT
#define ANSWERS_LATE false
#else
#define ANSWERS_LATE true
#endif
#define RIGHT_ENDS \
    :: d_step { reset && !R_OVER -> GO_RIGHT(E_SESSION_OVER, R_CANCELLED); todo[1] = false }

#define FAULTS \
    :: d_step { deaths > 0 && turn && !L_OVER && !(dead & BIT(turn)) -> \
        deaths--; dead = dead | BIT(turn); \
        stranded = stranded || (left != L_LOCKING && left != L_CONNECTING) } \
    :: d_step { RESETS && !reset -> reset = true; why = true; forget(); p = 0 } \
    :: d_step { crashes > 0 && todo[0] -> crashes--; recover_left() } \
    :: d_step { crashes > 0 && todo[1] -> crashes--; recover_right() }
/* After a reset no more data are looked at. */
inline forget() {
    do
    :: p < 6 ->
        sent[p] = 0; heard[p] = START; base[p] = NONE; hbase[p] = NONE; got[p] = 0;
        p++
    :: else -> break
    od;
    p = 0;
    do
    :: p < 2 -> top[p] = START; taken[p] = START; passed[p] = 0; p++
    :: else -> break
    od;
    p = 0
}
/* left.recover, right.recover: what was to be done is gone, but for what the journal says. */
inline recover_left() {
    todo[0] = (neu[0] == turn)
}
inline recover_right() {
    if
    :: right == R_PREPARED && neu[1] != rturn ->
        GO_RIGHT(E_RECOVER, R_LOCKED);
        todo[1] = false
    :: else ->
#ifdef BUG_RESTART
        todo[1] = false
#else
        todo[1] = (neu[1] == rturn)
#endif
    fi;
    p = 0
}

inline check_end() {
    bool waits = false;
    /* On a path whose box has died nothing drains: it waits for the session's end. */
    waits = stranded && !reset && left == L_DRAINING;
    assert(!waits || right == R_DRAINING || right == R_DRAINED);
    assert(waits || left == L_FINISHED || left == L_FAILED || (reset && left == L_NONE));
    assert(waits || R_OVER);
    assert(!todo[0] && !todo[1]);
    assert(left != L_FAILED || why);            /* no unnecessary failure */
    if
    :: !reset && !waits ->
        assert(!neu[0] && !neu[1] && way[0] == way[1]);
        assert((left == L_FINISHED) == (way[0] == turn));
        assert(way[0] == 0 || (wout[0] == win[1] && wout[1] == win[0]));
        if
        :: !stranded ->
            assert(ALL(0) == WHOLE(0) && ALL(1) == WHOLE(1));
            assert(ID(una[0]) == BYTES0 + 1 && ID(una[1]) == BYTES1 + 1)
        :: else
        fi
    :: else
    fi
}

#define EACH_BYTE(x) \
    TRANSMIT(x, 0) TRANSMIT(x, 1) RELAY_ON(x, 0) RELAY_ON(x, 1) \
    ARRIVE(1 - x, 0, 0) ARRIVE(1 - x, 0, 1) ARRIVE(1 - x, 1, 0) ARRIVE(1 - x, 1, 1) LATER_BYTES(x) \
    LATER_TURN(x)
#if BYTES0 > 1 || BYTES1 > 1
#define LATER_BYTES(x) \
    TRANSMIT(x, 2) RELAY_ON(x, 2) ARRIVE(1 - x, 0, 2) ARRIVE(1 - x, 1, 2) THIRD(x)
#else
#define LATER_BYTES(x)
#endif
#if BYTES0 > 2 || BYTES1 > 2
#define THIRD(x) TRANSMIT(x, 3) RELAY_ON(x, 3) ARRIVE(1 - x, 0, 3) ARRIVE(1 - x, 1, 3)
#else
#define THIRD(x)
#endif
#if TURNS > 1
#define LATER_TURN(x) \
    ARRIVE(1 - x, 2, 0) ARRIVE(1 - x, 2, 1) ARRIVE(1 - x, 2, 2) ARRIVE(1 - x, 2, 3) ACK_COMES(x, 2)
#else
#define LATER_TURN(x)
#endif

init {
    do
    WRITE(0) WRITE(1)
    EACH_BYTE(0) EACH_BYTE(1)
    ACK_ONE(0) ACK_ONE(1)
    ACK_COMES(0, 0) ACK_COMES(0, 1) ACK_COMES(1, 0) ACK_COMES(1, 1)
    RELAY(0) RELAY(1)
    LEFT_ANCHOR
    OLD_PATH
    RIGHT_ANCHOR(1)
#if TURNS > 1
    RIGHT_ANCHOR(2)
#endif
    RIGHT_ENDS
    FAULTS
    :: d_step { timeout -> check_end(); p = 0 }; break
    od
}
