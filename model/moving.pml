/*
 * A session's state goes from one host to another, and the path with it: replace with state migration,
 * and the mobility of an end.
 *
 *                               X  old host: state, gate
 *     host 0 == left anchor L <                            > right anchor R == host 1
 *               gate            Y  new host                  gate
 *
 * With END there is no right anchor: X and Y are the session's end themselves, host 1 in one of them.
 * The code beside it is dysco/agent/reconfigure: move_left, move_right, source, target, gate. As in
 * paths.pml a request goes from anchor to anchor, and the network is a set: what was put in stays, and
 * arrives any number of times, in any order, or never.
 *
 * What matters is the state: `seen` is what a host has noted of the session, a bit for each packet that
 * passed it. A copy that lacks a bit of the original must never pass a packet, and the original none
 * after the copy did.
 */

#include "states.pml"           /* from model/table.py */

#ifndef BYTES0
#define BYTES0 2                /* packets that host 0 sends */
#endif
#ifndef BYTES1
#define BYTES1 1
#endif
#ifndef END
#define END 0                   /* an end moves, not a box */
#endif
#ifndef CRASHES
#define CRASHES 0               /* of any agent, after its journal and before what it was about to do */
#endif
#ifndef FAILS
#define FAILS 0                 /* the copy, or taking it in, may fail */
#endif
#ifndef RESETS
#define RESETS 0                /* the session may end */
#endif
#define AGAIN 2                 /* it is asked to again and again for less than a second */

#define OLD 0
#define NEW 1
#define OPEN 0
#define HELD 1
#define SHUT 2
#define IDLE    0               /* nothing is held */
#define HOLDS   1
#define LETS_GO 2

/* Messages. */
#define REQUEST      0
#define ACK_LOCK     1
#define MOVE_OUT     2
#define MOVE_IN      3
#define JOIN         4
#define DONE_PREPARE 5
#define DO_HOLD      6
#define DONE_HOLD    7
#define DO_EXPORT    8
#define CHUNKS       9
#define DONE_EXPORT  10
#define DO_SWITCH    11
#define DONE_SWITCH  12
#define DO_SETTLE    13
#define DONE_SETTLE  14
#define FAILED       15
#define CANCEL       16
#define ACK_CANCEL   17
#define RELEASE      18
#define ACK_RELEASE  19
#define CANCEL_NEW   20
int net;
#define BIT(i)  (1 << (i))
#define HAS(m)  (net & BIT(m))
#define PUT(m)  net = net | BIT(m)

byte left = M_NONE;
byte right = J_NONE;
byte old = S_NONE;
byte new = T_NONE;
bool todo[2];                   /* an anchor's new path: in the journal, not yet in the table */
byte path[2];                   /* of each anchor */
byte gate[2];
byte hold[2];
byte queue[2];                  /* packets that the agent holds */
bool late[2];                   /* for so long already that it keeps no more */
byte again = AGAIN;             /* how often the right anchor begins to hold */
byte shut;                      /* X's gate */
bool told_old;                  /* X has heard the end, which goes by it to the right */

byte seen[2];                   /* by X, by Y */
byte copy;
bool passed_new;                /* Y has passed something */
byte air[4];                    /* [sender * 2 + path]: packets under way to X or Y */
byte past[4];                   /* and from there on */
byte got[2];                    /* by the host that they are for: [sender] */

byte crashes = CRASHES;
bool reset;
bool ended;                     /* the left anchor knows */

#define PACKETS(d) (BIT((d) == 0 -> BYTES0 : BYTES1) - 1)
#define ID(d, i)   BIT((d) * 2 + (i))
#define L_BEFORE   (left == M_LOCKING || left == M_PREPARING || left == M_HOLDING || left == M_MOVING)
#define L_DECIDED  (left == M_SWITCHING || left == M_RELEASING || left == M_FINISHED)
#define L_OVER     (left == M_FINISHED || left == M_FAILED)
#define R_OVER     (right == J_FINISHED || right == J_CANCELLED)
#define X_OVER     (old == S_GONE || old == S_BACK)
#define Y_OVER     (new == T_SETTLED || new == T_DROPPED)

#define GO_LEFT(event, to)  MARK(ROLE_MOVE, left, event, to); left = to
#define GO_RIGHT(event, to) MARK(ROLE_JOIN, right, event, to); right = to
#define GO_OLD(event, to)   MARK(ROLE_SOURCE, old, event, to); old = to
#define GO_NEW(event, to)   MARK(ROLE_TARGET, new, event, to); new = to

/* Packets. A host sends until the other has it; what finds the gate held waits at the agent. */
#define OWES(d, i) (!reset && (PACKETS(d) & BIT(i)) && !(got[d] & BIT(i)))
#define IN_AIR(d, p, i) (air[(d) * 2 + (p)] & BIT(i))
#define FROM_END(d) (END && (d) == 1)
/* Host 1 is in X until the state has gone, then in Y. */
#define LIVES_OLD (shut == OPEN && old != S_GONE)
#ifdef BUG_THAW
#define LIVES_NEW (new == T_IMPORTED || new == T_SETTLED)
#else
#define LIVES_NEW (new == T_SETTLED || (!END && new == T_IMPORTED))
#endif
#define PACKET(d, i) \
    :: d_step { OWES(d, i) && !FROM_END(d) && (gate[d] == OPEN || hold[d] == LETS_GO) && \
                !IN_AIR(d, path[d], i) -> \
        air[(d) * 2 + path[d]] = air[(d) * 2 + path[d]] | BIT(i) } \
    :: d_step { OWES(d, i) && !FROM_END(d) && gate[d] == HELD && hold[d] == HOLDS && !late[d] && \
                !(queue[d] & BIT(i)) -> queue[d] = queue[d] | BIT(i) } \
    :: d_step { hold[d] == LETS_GO && (queue[d] & BIT(i)) -> \
        queue[d] = queue[d] & ~BIT(i); \
        air[(d) * 2 + path[d]] = air[(d) * 2 + path[d]] | BIT(i) } \
    :: d_step { OWES(d, i) && FROM_END(d) && LIVES_OLD && !IN_AIR(d, OLD, i) -> \
        air[(d) * 2 + OLD] = air[(d) * 2 + OLD] | BIT(i) } \
    :: d_step { OWES(d, i) && FROM_END(d) && LIVES_NEW && !IN_AIR(d, NEW, i) -> \
        air[(d) * 2 + NEW] = air[(d) * 2 + NEW] | BIT(i) } \
    PASS_OLD(d, i) PASS_NEW(d, i) ARRIVE(d, OLD, i) ARRIVE(d, NEW, i)
/* The original passes nothing more once the copy did. */
#define PASS_OLD(d, i) \
    :: d_step { !reset && IN_AIR(d, OLD, i) && !(past[(d) * 2 + OLD] & BIT(i)) && LIVES_OLD -> \
        assert(!passed_new); \
        seen[OLD] = seen[OLD] | ID(d, i); \
        past[(d) * 2 + OLD] = past[(d) * 2 + OLD] | BIT(i) }
/* The copy lacks nothing of the original. */
#define PASS_NEW(d, i) \
    :: d_step { !reset && IN_AIR(d, NEW, i) && !(past[(d) * 2 + NEW] & BIT(i)) && LIVES_NEW -> \
        assert(!(seen[OLD] & ~seen[NEW])); \
        passed_new = true; \
        seen[NEW] = seen[NEW] | ID(d, i); \
        past[(d) * 2 + NEW] = past[(d) * 2 + NEW] | BIT(i) }
#define ARRIVE(d, p, i) \
    :: d_step { !reset && (past[(d) * 2 + (p)] & BIT(i)) && !(got[d] & BIT(i)) && \
                ((END && (d) == 0) || path[1 - (d)] == (p)) -> got[d] = got[d] | BIT(i) }

/* holds.py: what is held leaves once the entry is in; not for longer than TCP bears. */
inline let_go(d) {
    if
    :: gate[d] == HELD && hold[d] == IDLE -> gate[d] = OPEN
    :: gate[d] == HELD && hold[d] == HOLDS -> hold[d] = LETS_GO
    :: else
    fi
}
#define HOLDING(d) \
    :: d_step { hold[d] == LETS_GO && !queue[d] && !todo[d] -> hold[d] = IDLE; gate[d] = OPEN } \
    :: d_step { hold[d] == HOLDS && !late[d] -> late[d] = true; queue[d] = 0 }

inline hold_back(d) {
    gate[d] = HELD;
    hold[d] = HOLDS;
    late[d] = false
}
inline go_back(event) {
    GO_LEFT(event, M_CANCELLING)
}

#ifdef BUG_DECIDE
#define IS_IMPORTED HAS(CHUNKS)
#else
#define IS_IMPORTED HAS(DONE_EXPORT)
#endif
#ifdef BUG_KEEPS_HELD
#define FREES false
#else
#define FREES true
#endif
#define LEFT_ANCHOR \
    :: d_step { left == M_NONE && !reset -> GO_LEFT(E_START, M_LOCKING); PUT(REQUEST) } \
    :: d_step { left == M_LOCKING && HAS(ACK_LOCK) -> \
        GO_LEFT(E_ACK_LOCK, M_PREPARING); PUT(MOVE_OUT) } \
    :: d_step { left == M_PREPARING && HAS(DONE_PREPARE) -> \
        hold_back(0); \
        if \
        :: END -> GO_LEFT(E_DONE_PREPARE, M_MOVING); PUT(DO_EXPORT) \
        :: else -> GO_LEFT(E_DONE_PREPARE, M_HOLDING); PUT(DO_HOLD) \
        fi } \
    :: d_step { left == M_HOLDING && HAS(DONE_HOLD) -> GO_LEFT(E_DONE_HOLD, M_MOVING); PUT(DO_EXPORT) } \
    :: d_step { left == M_MOVING && IS_IMPORTED -> \
        GO_LEFT(E_DONE_EXPORT, M_SWITCHING); todo[0] = true } \
    :: d_step { todo[0] -> path[0] = NEW; todo[0] = false } \
    :: d_step { left == M_SWITCHING && !todo[0] && !HAS(DO_SETTLE) -> PUT(DO_SETTLE) } \
    :: d_step { left == M_SWITCHING && !todo[0] && !HAS(DO_SWITCH) && !END -> PUT(DO_SWITCH) } \
    /* Out of patience: what is held goes to the new host, which may not take it yet. */ \
    :: d_step { left == M_SWITCHING && !todo[0] && gate[0] == HELD && hold[0] != LETS_GO -> let_go(0) } \
    :: d_step { left == M_SWITCHING && !todo[0] && HAS(DONE_SETTLE) && (END || HAS(DONE_SWITCH)) -> \
        GO_LEFT(E_DONE_SETTLE, M_RELEASING); let_go(0) } \
    :: d_step { left == M_SWITCHING && !todo[0] && HAS(DONE_SETTLE) && HAS(DONE_SWITCH) -> \
        GO_LEFT(E_DONE_SWITCH, M_RELEASING); let_go(0) } \
    :: d_step { left == M_RELEASING && !HAS(RELEASE) -> PUT(RELEASE) } \
    :: d_step { left == M_RELEASING && HAS(ACK_RELEASE) -> GO_LEFT(E_ACK_RELEASE, M_FINISHED) } \
    /* Back, for as long as nothing is decided. */ \
    :: d_step { L_BEFORE -> go_back(E_CANCEL) } \
    :: d_step { left == M_LOCKING && HAS(REQUEST) -> go_back(E_NACK_LOCK) } \
    :: d_step { HAS(FAILED) && (left == M_PREPARING || left == M_HOLDING || left == M_MOVING) -> \
        go_back(E_MOVE_FAILED) } \
    :: d_step { left == M_CANCELLING && !ended && !HAS(CANCEL) -> PUT(CANCEL) } \
    :: d_step { left == M_CANCELLING && ended && !HAS(RELEASE) -> PUT(RELEASE) } \
    :: d_step { left == M_CANCELLING && gate[0] == HELD && hold[0] != LETS_GO && FREES -> let_go(0) } \
    :: d_step { left == M_CANCELLING && HAS(ACK_CANCEL) -> GO_LEFT(E_ACK_CANCEL, M_FAILED); \
        if \
        :: FREES -> let_go(0) \
        :: else \
        fi } \
    :: d_step { left == M_CANCELLING && HAS(ACK_RELEASE) -> \
        GO_LEFT(E_ACK_RELEASE, M_FAILED); let_go(0) } \
    /* The new host is told, and told when it asks how it went. */ \
    :: d_step { (left == M_CANCELLING || (left == M_FAILED && HAS(DONE_EXPORT))) && !ended && !HAS(CANCEL_NEW) -> \
        PUT(CANCEL_NEW) }

#ifdef BUG_SWITCH_EARLY
#define SWITCH_EARLY path[1] = NEW
#else
#define SWITCH_EARLY skip
#endif
#define RIGHT_ANCHOR \
    :: d_step { HAS(REQUEST) && right == J_NONE -> GO_RIGHT(E_REQUEST, J_LOCKED); PUT(ACK_LOCK) } \
    :: d_step { HAS(JOIN) && right == J_LOCKED -> GO_RIGHT(E_JOIN, J_JOINED); PUT(DONE_PREPARE) } \
    :: d_step { HAS(DO_HOLD) && right == J_JOINED && again > 0 -> \
        again--; GO_RIGHT(E_DO_HOLD, J_HOLDING); hold_back(1); PUT(DONE_HOLD); SWITCH_EARLY } \
    /* Not heard of the left anchor for too long. */ \
    :: d_step { right == J_HOLDING -> GO_RIGHT(E_PATIENCE, J_JOINED); let_go(1) } \
    :: d_step { HAS(DO_SWITCH) && (right == J_JOINED || right == J_HOLDING) -> \
        GO_RIGHT(E_DO_SWITCH, J_SWITCHED); todo[1] = true } \
    :: d_step { todo[1] -> path[1] = NEW; todo[1] = false } \
    :: d_step { right == J_SWITCHED && !todo[1] && !HAS(DONE_SWITCH) -> let_go(1); PUT(DONE_SWITCH) } \
    :: d_step { HAS(RELEASE) && told_old && (right == J_JOINED || right == J_HOLDING || right == J_SWITCHED) -> \
        todo[1] = (path[1] != NEW); let_go(1); GO_RIGHT(E_RELEASE, J_FINISHED) } \
    :: d_step { HAS(RELEASE) && told_old && right == J_LOCKED -> GO_RIGHT(E_RELEASE, J_FINISHED) } \
    :: d_step { HAS(RELEASE) && told_old && (R_OVER || right == J_NONE) && !todo[1] && !HAS(ACK_RELEASE) -> \
        PUT(ACK_RELEASE) } \
    :: d_step { HAS(CANCEL) && told_old && (right == J_LOCKED || right == J_JOINED || right == J_HOLDING) -> \
        let_go(1); GO_RIGHT(E_CANCEL_LOCK, J_CANCELLED) } \
    :: d_step { HAS(CANCEL) && told_old && right == J_NONE -> right = J_CANCELLED } \
    :: d_step { HAS(CANCEL) && told_old && right == J_CANCELLED && !HAS(ACK_CANCEL) -> PUT(ACK_CANCEL) }

#ifdef BUG_COPY_OPEN
#define IS_SHUT true
#else
#define IS_SHUT (shut == SHUT)
#endif
#define OLD_HOST \
    :: d_step { HAS(REQUEST) && old == S_NONE -> \
        GO_OLD(E_REQUEST, S_LEAVING); \
        if \
        :: END -> PUT(ACK_LOCK) \
        :: else \
        fi } \
    :: d_step { HAS(MOVE_OUT) && old == S_LEAVING && !HAS(MOVE_IN) -> PUT(MOVE_IN) } \
    :: d_step { HAS(DO_EXPORT) && old == S_LEAVING -> GO_OLD(E_DO_EXPORT, S_QUIETING) } \
    /* All has left, or it was not waited for any longer. */ \
    :: d_step { old == S_QUIETING -> GO_OLD(E_QUIET, S_EXPORTING) } \
    :: d_step { old == S_EXPORTING && shut == OPEN -> shut = SHUT } \
    :: d_step { old == S_EXPORTING && IS_SHUT -> \
        copy = seen[OLD]; GO_OLD(E_EXPORTED, S_SENDING) } \
    :: d_step { old == S_SENDING && !HAS(CHUNKS) -> PUT(CHUNKS) } \
    :: d_step { FAILS && old == S_EXPORTING && !HAS(FAILED) -> PUT(FAILED) } \
    :: d_step { HAS(CANCEL) && !X_OVER -> \
        if \
        :: old != S_NONE -> GO_OLD(E_CANCEL_LOCK, S_BACK) \
        :: else -> old = S_BACK \
        fi; \
        shut = OPEN; told_old = true } \
    :: d_step { HAS(RELEASE) && !X_OVER -> \
        if \
        :: old != S_NONE -> GO_OLD(E_RELEASE, S_GONE) \
        :: else -> old = S_GONE \
        fi; \
        shut = OPEN; told_old = true } \
    :: d_step { END && HAS(CANCEL) && told_old && !HAS(ACK_CANCEL) -> PUT(ACK_CANCEL) } \
    :: d_step { END && HAS(RELEASE) && told_old && !HAS(ACK_RELEASE) -> PUT(ACK_RELEASE) }

#ifdef BUG_DROPS_IT
#define MAY_DROP (new == T_ARRIVING || new == T_IMPORTING || new == T_IMPORTED)
#else
#define MAY_DROP (new == T_ARRIVING || new == T_IMPORTING)
#endif
#define NEW_HOST \
    :: d_step { HAS(MOVE_IN) && new == T_NONE -> GO_NEW(E_MOVE_IN, T_ARRIVING) } \
    :: d_step { new == T_ARRIVING && !END && !HAS(JOIN) -> PUT(JOIN) } \
    :: d_step { new == T_ARRIVING && END && !HAS(DONE_PREPARE) -> PUT(DONE_PREPARE) } \
    :: d_step { HAS(CHUNKS) && new == T_ARRIVING -> GO_NEW(E_CHUNKS, T_IMPORTING) } \
    :: d_step { new == T_IMPORTING -> seen[NEW] = copy; GO_NEW(E_IMPORTED, T_IMPORTED) } \
    :: d_step { new == T_IMPORTED && !HAS(DONE_EXPORT) -> PUT(DONE_EXPORT) } \
    :: d_step { FAILS && (new == T_ARRIVING || new == T_IMPORTING) && !HAS(FAILED) -> PUT(FAILED) } \
    :: d_step { HAS(DO_SETTLE) && new == T_IMPORTED -> GO_NEW(E_DO_SETTLE, T_SETTLED) } \
    :: d_step { new == T_SETTLED && !HAS(DONE_SETTLE) -> PUT(DONE_SETTLE) } \
    :: d_step { HAS(CANCEL_NEW) && !Y_OVER && new != T_NONE -> GO_NEW(E_CANCEL_LOCK, T_DROPPED) } \
    /* Nobody spoke to it for the time of a lease. */ \
    :: d_step { MAY_DROP -> GO_NEW(E_FORSAKEN, T_DROPPED) }

/* An agent dies and comes back: recover() of each. What it held is gone. */
#ifdef BUG_RECOVER_BACK
#define MAY_GO_BACK (L_BEFORE || left == M_SWITCHING)
#else
#define MAY_GO_BACK L_BEFORE
#endif
#ifdef BUG_OPENS
#define OPENS shut = OPEN
#else
#define OPENS skip
#endif
#define FAULTS \
    :: d_step { crashes > 0 && left != M_NONE -> \
        crashes--; \
        queue[0] = 0; hold[0] = IDLE; \
        if \
        :: MAY_GO_BACK -> go_back(E_CANCEL); todo[0] = false; gate[0] = OPEN \
        :: else -> \
            todo[0] = (L_DECIDED && path[0] != NEW); \
            if \
            :: left != M_SWITCHING -> gate[0] = OPEN \
            :: else \
            fi \
        fi } \
    :: d_step { crashes > 0 && right != J_NONE -> \
        crashes--; \
        queue[1] = 0; hold[1] = IDLE; gate[1] = OPEN; \
        todo[1] = ((right == J_SWITCHED || right == J_FINISHED) && path[1] != NEW && !reset); \
        if \
        :: right == J_HOLDING -> GO_RIGHT(E_RECOVER, J_JOINED) \
        :: else \
        fi } \
    :: d_step { crashes > 0 && (old == S_QUIETING || old == S_EXPORTING || old == S_SENDING) -> \
        crashes--; PUT(FAILED); OPENS } \
    :: d_step { crashes > 0 && (new == T_ARRIVING || new == T_IMPORTING) -> crashes--; PUT(FAILED) } \
    :: d_step { RESETS && !reset && left != M_NONE -> reset = true; forget() }
/* After a reset no more data are looked at. */
inline forget() {
    air[0] = 0; air[1] = 0; air[2] = 0; air[3] = 0;
    past[0] = 0; past[1] = 0; past[2] = 0; past[3] = 0;
    queue[0] = 0; queue[1] = 0; got[0] = 0; got[1] = 0; seen[0] = 0; seen[1] = 0; copy = 0
}
#define SESSION_ENDS \
    :: d_step { reset && !ended && left != M_NONE && !L_OVER && left != M_RELEASING -> \
        if \
        :: left != M_CANCELLING -> GO_LEFT(E_SESSION_OVER, M_CANCELLING) \
        :: else \
        fi; \
        ended = true; todo[0] = false; let_go(0) } \
    :: d_step { reset && !R_OVER && right != J_NONE -> \
        GO_RIGHT(E_SESSION_OVER, J_CANCELLED); todo[1] = false; let_go(1) } \
    :: d_step { reset && (new == T_ARRIVING || new == T_IMPORTING) -> \
        PUT(FAILED); GO_NEW(E_SESSION_OVER, T_DROPPED) } \
    :: d_step { reset && new == T_IMPORTED -> GO_NEW(E_SESSION_OVER, T_SETTLED) }

inline check_end() {
    assert(left == M_FINISHED || left == M_FAILED);
    assert(END || R_OVER || (reset && right == J_NONE));
    assert(new == T_NONE || Y_OVER);
    assert(old == S_NONE || X_OVER);
    assert(gate[0] == OPEN && gate[1] == OPEN && !todo[0] && !todo[1]);
    assert(!queue[0] && !queue[1]);
    if
    :: !reset ->
        assert(got[0] == PACKETS(0) && got[1] == PACKETS(1));
        assert(END || path[0] == path[1]);
        assert((left == M_FINISHED) == (path[0] == NEW));
        /* The state is in one place. */
        assert(left != M_FINISHED || (new == T_SETTLED && old == S_GONE));
        assert(left != M_FAILED || ((new == T_DROPPED || new == T_NONE) && (old == S_BACK || old == S_NONE)))
    :: else
    fi
}

init {
    do
    PACKET(0, 0) PACKET(1, 0)
#if BYTES0 > 1
    PACKET(0, 1)
#endif
    HOLDING(0) HOLDING(1)
    LEFT_ANCHOR
#if !END
    RIGHT_ANCHOR
#endif
    OLD_HOST
    NEW_HOST
    SESSION_ENDS
    FAULTS
    :: d_step { timeout -> check_end() }; break
    od
}
