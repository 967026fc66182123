/* What the parts of the runtime share; nothing of it is visible to generated code. */
#ifndef SOFTNIC_INTERNAL_H
#define SOFTNIC_INTERNAL_H

#include <linux/virtio_net.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include "softnic.h"

#define SN_BURST 64
#define SN_MAX_PORTS 512
#define SN_FRAME_MAX 65536u
#define SN_HEADROOM 64u /* before a received frame: room to put a VLAN tag back */
#define SN_EXPORT __attribute__((visibility("default")))

/* ---- lock.c: fair, so that a writer is served after at most one burst ------------------- */

struct sn_lock {
    _Atomic uint32_t next, serving;
};

void sn_lock(struct sn_lock *l);
int sn_trylock(struct sn_lock *l); /* 1: taken, 0: somebody has it or waits for it */
void sn_unlock(struct sn_lock *l);

/* ---- table.c ---------------------------------------------------------------------------- */

enum sn_status { SN_OK, SN_EXISTS, SN_NOT_FOUND, SN_FULL, SN_INVALID, SN_IN_USE, SN_OTHER = 255 };

enum sn_op { SN_OP_INSERT = 1, SN_OP_MODIFY = 2, SN_OP_DELETE = 3 };

#define SN_MAX_NOTE 4096u /* bytes of metadata on one entry */

struct sn_tuple;
struct sn_meter;

struct sn_counter_cell {
    uint64_t packets, bytes;
};

/* What a controller attached to an entry: opaque to us. */
struct sn_note {
    uint64_t number;
    uint32_t len;
    uint8_t bytes[];
};

/* What a lookup reads and writes: of an exact entry with a short key one cache line. */
struct sn_entry {
    uint64_t last_hit, packets, bytes; /* ns; what hit it */
    uint32_t index;
    uint16_t action;
    uint8_t used, is_const;
    uint64_t data[]; /* key, mask or high bound (not in exact tables), parameters */
};

/* The rest of an entry, of which packets know nothing: see sn_cold. */
struct sn_cold {
    struct sn_entry *chain; /* same masked key, priority not higher */
    struct sn_note *note;
    uint64_t timeout, reported; /* ns; `reported`: the last_hit already told of */
    uint32_t priority;
};

struct sn_table {
    const struct sn_table_desc *desc;
    uint32_t words;      /* of the packed key */
    uint32_t exact;      /* all fields are */
    uint32_t has_range;  /* an entry that matched its tuple must still be checked */
    uint32_t by_prio;    /* entries carry a priority */
    uint32_t n_tuples, cap_tuples;
    struct sn_tuple **tuples; /* best first */
    uint32_t default_action;
    uint8_t *default_params;
    struct sn_counter_cell default_hits; /* packets that found no entry */
    struct sn_meter *default_meter;      /* of a table with meters */
    uint64_t seed;
    uint32_t count;
    size_t entry_size;
    struct sn_entry *free_list;
    uint8_t **chunks; /* each of as many entries, first all cold parts; several in one area */
    uint32_t n_chunks, next_index;
    void **areas;
    size_t *area_sizes;
    uint32_t n_areas;
};

struct sn_table_key {
    const uint8_t *key, *mask; /* packed */
    uint32_t priority;
};

int sn_table_init(struct sn_table *t, const struct sn_table_desc *d, uint64_t seed);
void sn_table_free(struct sn_table *t);
struct sn_entry *sn_table_lookup(struct sn_table *t, const uint64_t *key);
/* As a lookup in an exact table whose hash is known. */
struct sn_entry *sn_table_resume(struct sn_table *t, const uint64_t *key, uint64_t hash);
/* What was foreseen is in the cache by now: the entry is fetched. */
void sn_table_fetch(struct sn_ctx *c);
/* Whether lookups wait for memory, and whether they ever may. */
int sn_table_is_large(const struct sn_table *t);
int sn_table_may_be_large(const struct sn_table *t);
/* What an entry does once it matched; the note is the table's own from the moment of SN_OK. */
struct sn_deed {
    uint32_t action;
    const uint8_t *params;
    uint64_t timeout;
    struct sn_note *note;
};

enum sn_status sn_table_insert(struct sn_table *t, const struct sn_table_key *k,
                               const struct sn_deed *deed, uint64_t now, int is_const);
enum sn_status sn_table_modify(struct sn_table *t, const struct sn_table_key *k,
                               const struct sn_deed *deed, uint64_t now);
enum sn_status sn_table_delete(struct sn_table *t, const struct sn_table_key *k);
struct sn_entry *sn_table_find(struct sn_table *t, const struct sn_table_key *k);
struct sn_entry *sn_table_at(struct sn_table *t, uint32_t index); /* NULL: not in use */
struct sn_cold *sn_cold(const struct sn_table *t, const struct sn_entry *e);
const uint8_t *sn_entry_key(const struct sn_entry *e);
const uint8_t *sn_entry_mask(const struct sn_table *t, const struct sn_entry *e);
uint8_t *sn_entry_params(const struct sn_table *t, const struct sn_entry *e);
/* NULL where there is nothing to note; *failed is set when there is no memory. */
struct sn_note *sn_note_new(uint64_t number, const uint8_t *bytes, uint32_t len, int *failed);
struct sn_meter *sn_entry_meter(const struct sn_table *t, const struct sn_entry *e);

/* ---- meter.c ----------------------------------------------------------------------------- */

struct sn_rates {
    uint64_t cir, cburst, pir, pburst; /* units a second, units */
};

struct sn_meter {
    struct sn_rates rates;
    sn_u128 committed, peak; /* tokens */
    uint64_t last;
    uint32_t configured;
    struct sn_counter_cell colors[3]; /* what was green, yellow, red */
};

uint32_t sn_meter_run(struct sn_meter *m, uint32_t kind, uint32_t bytes, uint64_t now);
void sn_meter_set(struct sn_meter *m, const struct sn_rates *r, uint64_t now); /* NULL: unset */

/* ---- profile.c --------------------------------------------------------------------------- */

/* Sorted by id, which each item starts with. */
struct sn_id_list {
    void **items;
    uint32_t n, cap;
};

struct sn_member {
    uint32_t id, refs, action;
    uint8_t params[];
};

struct sn_slot {
    struct sn_member *member;
    uint32_t watch; /* port that must be up; SN_NONE: none */
};

struct sn_choice {
    uint32_t id, refs, n;
    struct sn_slot *slots;
};

struct sn_profile {
    const struct sn_profile_desc *desc;
    struct sn_id_list members, groups;
};

enum sn_status sn_member_set(struct sn_profile *p, uint32_t id, uint32_t action,
                             const uint8_t *params);
enum sn_status sn_member_delete(struct sn_profile *p, uint32_t id);
enum sn_status sn_choice_set(struct sn_profile *p, uint32_t id, const uint32_t *rows, uint32_t n);
enum sn_status sn_choice_delete(struct sn_profile *p, uint32_t id);
/* Counts a reference (by 1 or -1) of an entry; -1 where what it refers to doesn't exist. */
int sn_profile_ref(struct sn_profile *p, uint32_t action, const uint8_t *params, int by);
void sn_profile_free(struct sn_profile *p);

/* ---- pipe.c: one loaded program ---------------------------------------------------------- */

struct sn_vset {
    uint8_t *rows; /* of each member key, mask, low and high bound */
    uint32_t n;
    uint32_t (*ranges)[2]; /* offset and size of each field that matches by bounds */
    uint32_t n_ranges;
};

struct sn_pipe {
    const struct sn_program *prog;
    struct sn_device *dev;
    struct sn_table *tables;
    void **registers;
    struct sn_counter_cell **counters;
    struct sn_meter **meters;
    struct sn_profile *profiles;
    struct sn_vset *vsets;
    uint64_t random;
    uint32_t *foreseen, n_foreseen;    /* tables that may become large */
    uint32_t sweep_table, sweep_index; /* where the idle sweep goes on */
};

struct sn_pipe *sn_pipe_new(const struct sn_program *prog, struct sn_device *dev, uint64_t now,
                            uint64_t seed);
size_t sn_register_cell(const struct sn_array_desc *r); /* bytes of one */
void sn_pipe_free(struct sn_pipe *p);

/* ---- events.c ---------------------------------------------------------------------------- */

enum sn_event_kind {
    SN_PACKET_IN = 1,
    SN_DIGEST = 2,
    SN_IDLE = 3,
    SN_MESSAGE = 4,
    SN_TRACE = 5, /* in a ring of its own */
};

struct sn_event_rec {
    uint32_t kind, id, len, priority;
    uint8_t data[];
};

struct sn_ring {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    struct sn_event_rec **slots;
    uint32_t head, count, cap;
    size_t bytes, max_bytes;
    int closed, woken;
    int fd; /* an eventfd, written to when the ring was empty; -1: none */
    /* Offered a single event before it is put; 1: done with it. Called with the mutex held. */
    int (*now)(void *reader, const uint8_t *data, uint32_t len);
    void *reader;
    uint64_t last; /* ns, of the last event */
};

int sn_ring_init(struct sn_ring *r, uint32_t cap, size_t max_bytes);
void sn_ring_free(struct sn_ring *r);
void sn_ring_close(struct sn_ring *r);
/* Room for one event, filled by the caller, then put; NULL when the ring is full. */
int sn_ring_put(struct sn_ring *r, struct sn_event_rec *e);
/* From now on; a call of `now` that was under way has ended. */
void sn_ring_tell(struct sn_ring *r, int fd, int (*now)(void *, const uint8_t *, uint32_t),
                  void *reader);
struct sn_event_rec *sn_ring_pop(struct sn_ring *r); /* NULL when it is empty */
struct sn_event_rec *sn_event_new(uint32_t kind, uint32_t id, uint32_t len);
uint64_t sn_ring_read(struct sn_ring *r, uint8_t *buf, uint64_t cap, int64_t timeout_ns);

/* ---- switch.c: a frame's way ------------------------------------------------------------- */

enum sn_drop {
    SN_DROP_NO_PIPELINE,
    SN_DROP_PROGRAM,
    SN_DROP_NO_PORT,
    SN_DROP_PORT_DOWN,
    SN_DROP_TX_FULL,
    SN_DROP_TOO_BIG,
    SN_DROP_TX_ERROR,
    SN_DROP_NO_SESSION,
    SN_DROP_NO_GROUP,
    SN_DROP_CLONE_LIMIT,
    SN_DROP_LOOP_LIMIT,
    SN_DROP_BURST_FULL,
    SN_DROP_EVENT_FULL,
    SN_DROP_PACKET_OUT_FULL,
    SN_DROP_GSO,
    SN_DROP_RX_OVERRUN,
    SN_DROP_RX_TRUNCATED,
    SN_DROP_COUNT
};

struct sn_port {
    uint32_t number;
    char ifname[32];
    int fd, ifindex, up;
    uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes;
    uint64_t drops[SN_DROP_COUNT];
    uint32_t rx_big; /* the last burst was of super-segments */
};

/* One copy: to the first of its ports that is up, the preferred one first. */
struct sn_replica {
    uint32_t n;
    struct sn_copy {
        uint32_t port, instance;
    } *ways;
};

struct sn_group {
    uint32_t id, n, truncate;
    struct sn_replica *replicas;
};

struct sn_groups {
    struct sn_group *items;
    uint32_t n;
};

/* A frame on its way out: headers from the arena, payload where it was received. */
struct sn_out {
    uint32_t port;
    uint32_t head_len, payload_len;
    uint8_t *head;
    const uint8_t *payload;
    struct virtio_net_hdr vnet;
};

struct sn_frame {
    const uint8_t *data;
    uint32_t len, port;
    struct virtio_net_hdr vnet;
};

/* One pass: slots are numbered by its depth. */
struct sn_phv_slot {
    struct sn_ctx c;
    uint8_t *phv;
};

#define SN_MAX_DEPTH 24u
#define SN_GROUP 16u /* packets whose lookups wait for memory side by side */

/* Working memory of whoever runs packets: the worker, or a caller of sn_inject. */
struct sn_burst {
    struct sn_out *outs;
    uint32_t n_outs, cap_outs;
    uint8_t **arena;
    uint32_t n_arena, cur_arena;
    size_t arena_used;
    struct sn_phv_slot *slots; /* by depth */
    struct sn_phv_slot fronts[SN_GROUP]; /* instead of the first, of packets side by side */
    uint32_t phv_size;
    uint64_t now_ns;
    uint32_t passes; /* left to this frame */
};

struct sn_device {
    struct sn_lock lock;
    struct sn_pipe *pipe; /* under lock, as all below */
    struct sn_groups sessions, groups;
    uint32_t cpu_port, drop_port;
    uint64_t start_ns;
    uint32_t listening; /* messages of the program become events */
    uint64_t counts[SN_EV_COUNT];
    struct sn_port ports[SN_MAX_PORTS];
    uint32_t n_ports;
    struct sn_port *by_number[SN_MAX_PORTS]; /* ports below 512, as v1model has them */
    struct sn_port cpu, other;               /* counters of what has no interface */
    struct sn_ring ring;
    struct sn_trace *trace; /* NULL: nothing is traced */
    struct sn_ring punts;    /* packet-ins, where a server takes them (its fd is set) */
    struct sn_lock entities; /* a whole Write, or what must see only whole ones; before `lock` */
    struct sn_burst worker_burst, inject_burst;
    pthread_mutex_t inject_mutex;
    /* io.c */
    pthread_t thread;
    int started;
    _Atomic int stop;
    int epoll_fd, wake_fd, link_fd;
    struct sn_io *io;
    pthread_mutex_t out_mutex; /* packet-outs waiting */
    struct sn_frame *out_queue;
    uint32_t out_head, out_count;
    int out_busy;      /* somebody runs some of them: others wait, so that they stay in order */
    uint64_t last_out; /* ns */
    pthread_mutex_t ports_mutex; /* opening and closing them, and who sends to them besides the worker */
    uint64_t last_care, last_sweep;
};

/* lock.c: `lock`, which a thread that holds it already (sn_hold, nestable) isn't asked for again. */
void sn_hold(struct sn_device *d);
void sn_release(struct sn_device *d);
void sn_enter(struct sn_device *d);
void sn_leave(struct sn_device *d);

uint64_t sn_now(void);
struct sn_port *sn_port_of(struct sn_device *d, uint32_t number);
int sn_port_up(const struct sn_device *d, uint32_t number); /* SN_NONE is always up */
void sn_drop(struct sn_device *d, uint32_t port, enum sn_drop why);
int sn_burst_init(struct sn_burst *b);
void sn_burst_free(struct sn_burst *b);
void sn_burst_reset(struct sn_burst *b, uint64_t now);
int sn_burst_fit(struct sn_burst *b, uint32_t phv_size);
uint8_t *sn_burst_alloc(struct sn_burst *b, size_t n);
/* Runs frames through, in their order; what comes out is appended to b->outs. The lock is held. */
void sn_switch(struct sn_device *d, struct sn_burst *b, const struct sn_frame *frames, uint32_t n);
const struct sn_group *sn_group_find(const struct sn_groups *g, uint32_t id);
/* Where a replica goes now; where all its ports are down, the preferred one, to be counted there. */
struct sn_copy sn_replica_way(const struct sn_device *d, const struct sn_replica *r);
void sn_punt(struct sn_device *d, const struct sn_out *o);
/* Reports idle entries of at most `budget` looked at; 1 when a whole round is done. */
int sn_sweep(struct sn_device *d, uint64_t now, uint32_t budget);

/* ---- trace.c: what one packet went through ----------------------------------------------- */

enum sn_trace_kind {
    SN_TRACE_BEGIN = 1,
    SN_TRACE_PASS,
    SN_TRACE_STATE,
    SN_TRACE_PARSED,
    SN_TRACE_TABLE,
    SN_TRACE_PICK,
    SN_TRACE_ACTION,
    SN_TRACE_IF,
    SN_TRACE_STEP,
    SN_TRACE_CHANGE,
    SN_TRACE_EGRESS,
    SN_TRACE_CLONE,
    SN_TRACE_MULTICAST,
    SN_TRACE_RESUBMIT,
    SN_TRACE_RECIRCULATE,
    SN_TRACE_DIGEST,
    SN_TRACE_DEPARSE,
    SN_TRACE_DROP,
    SN_TRACE_OUT,
    SN_TRACE_END,
};

void sn_trace_begin(struct sn_device *d, const struct sn_burst *b, const struct sn_frame *f);
void sn_trace_end(struct sn_device *d);
/* A new pass: its values count as they are now. */
void sn_trace_open(struct sn_device *d, struct sn_ctx *c);
void sn_trace_put(struct sn_device *d, const struct sn_ctx *c, enum sn_trace_kind kind,
                  uint32_t id, uint32_t a, uint32_t b);
void sn_trace_out(struct sn_device *d, const struct sn_ctx *c, const struct sn_out *o);
void sn_trace_close(struct sn_device *d); /* whoever waits for traces comes back */
void sn_trace_free(struct sn_device *d);

/* ---- offload.c --------------------------------------------------------------------------- */

/* Makes o->vnet true of the frame as it now is; 0, or -1 when it can't be sent (GSO). */
int sn_offload_out(struct sn_out *o, const struct sn_ctx *c, const struct virtio_net_hdr *in,
                   int truncated, int to_cpu, struct sn_burst *b);

/* ---- io.c ------------------------------------------------------------------------------- */

int sn_io_start(struct sn_device *d);
void sn_io_stop(struct sn_device *d);
int sn_io_packet_out(struct sn_device *d, const uint8_t *data, uint32_t len);

/* ---- wire.c: P4Runtime's WriteRequest ---------------------------------------------------- */

struct sn_wire_head {
    uint64_t device_id, role_id, role_at, role_len, has_election_id, high, low, atomicity, updates;
};

struct sn_wire_place {
    uint64_t at;            /* where in the request to go on, 0 at first */
    uint32_t index, unused; /* of the next update */
};

struct sn_wire;

int sn_wire_head(const uint8_t *request, uint64_t len, struct sn_wire_head *h);
int sn_wire_plain(const struct sn_wire *w, const uint8_t *request, uint64_t len);
int sn_wire_write(struct sn_device *d, const struct sn_wire *w, const uint8_t *request,
                  uint64_t len, struct sn_wire_place *place, uint8_t *status, uint64_t *spans);

#endif
