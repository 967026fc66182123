/*
 * Match tables: a tuple space. Entries with the same mask share one hash table (a tuple); a
 * lookup asks the tuples in order, best first, and stops when no later one can be better.
 *
 *     exact    one tuple
 *     LPM      one tuple for each prefix length in use, longest first
 *     others   one tuple for each mask in use, ordered by the highest priority in it; range fields
 *              are left out of the mask and checked on each candidate
 *
 * The hash tables are open-addressing arrays of tagged pointers. They grow by moving a few slots
 * on each insertion, so that no packet waits for a whole table to be rehashed.
 */
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

#define CHUNK 1024u /* entries */
#define SMALL_CHUNKS 16u /* that many by themselves, further ones in huge pages */
#define LINE 64u /* bytes of a cache line */
#ifndef SN_LARGE
#define SN_LARGE 4096u /* entries: more than the nearest cache holds */
#endif
#define MOST_FETCHED 256u /* bytes of an entry */
#define HUGE_PAGE ((size_t)2 << 20)
#define MIN_SLOTS 16u
#define MOVE_PER_WRITE 16u
#define PTR_MASK 0x0000ffffffffffffull
#define TOMB 1ull

struct sn_map {
    uint64_t *slots; /* 0: free, TOMB: deleted, else hash tag (16 bits) and entry address (48) */
    uint32_t mask, used; /* used: filled or deleted */
};

struct sn_tuple {
    struct sn_map now, old; /* `old` is being emptied into `now` */
    uint32_t old_pos;
    uint32_t count;       /* live chains */
    uint32_t rank;        /* highest priority ever in it, or prefix length */
    uint64_t mask[];
};

static uint64_t mum(uint64_t a, uint64_t b) {
    sn_u128 r = (sn_u128)a * b;
    return (uint64_t)r ^ (uint64_t)(r >> 64);
}

static inline uint64_t hash_words(const uint64_t *w, uint32_t n, uint64_t seed) {
    uint64_t h = seed;
    for (uint32_t i = 0; i < n; i++) h = mum(h ^ w[i], 0x9e3779b97f4a7c15ull) ^ (h >> 29);
    return mum(h, 0xd6e8feb86659fd93ull);
}

struct sn_cold *sn_cold(const struct sn_table *t, const struct sn_entry *e) {
    return (struct sn_cold *)t->chunks[e->index / CHUNK] + e->index % CHUNK;
}

const uint8_t *sn_entry_key(const struct sn_entry *e) { return (const uint8_t *)e->data; }

const uint8_t *sn_entry_mask(const struct sn_table *t, const struct sn_entry *e) {
    return t->exact ? NULL : (const uint8_t *)(e->data + t->words);
}

uint8_t *sn_entry_params(const struct sn_table *t, const struct sn_entry *e) {
    return (uint8_t *)(e->data + t->words * (t->exact ? 1 : 2));
}

struct sn_meter *sn_entry_meter(const struct sn_table *t, const struct sn_entry *e) {
    uint64_t at = (uint64_t)(uintptr_t)sn_entry_params(t, e) + t->desc->max_params;
    return (struct sn_meter *)(uintptr_t)((at + 15) & ~15ull);
}

/* ---- hash tables ------------------------------------------------------------------------- */

static inline struct sn_entry *slot_entry(uint64_t slot) {
    return (struct sn_entry *)(uintptr_t)(slot & PTR_MASK);
}

static inline uint64_t slot_make(struct sn_entry *e, uint64_t hash) {
    return (hash & ~PTR_MASK) | ((uint64_t)(uintptr_t)e & PTR_MASK);
}

static int same_masked(const struct sn_entry *e, const uint64_t *key, const uint64_t *mask,
                       uint32_t words) {
    for (uint32_t i = 0; i < words; i++)
        if ((e->data[i] & mask[i]) != key[i]) return 0;
    return 1;
}

static uint64_t *map_find(struct sn_map *m, const uint64_t *key, const uint64_t *mask,
                          uint32_t words, uint64_t hash) {
    if (!m->slots) return NULL;
    for (uint64_t i = hash & m->mask;; i = (i + 1) & m->mask) {
        uint64_t s = m->slots[i];
        if (s == 0) return NULL;
        if (s != TOMB && (s & ~PTR_MASK) == (hash & ~PTR_MASK) &&
            same_masked(slot_entry(s), key, mask, words))
            return &m->slots[i];
    }
}

static void map_add(struct sn_map *m, uint64_t slot, uint64_t hash) {
    uint64_t i = hash & m->mask;
    while (m->slots[i] > TOMB) i = (i + 1) & m->mask;
    if (m->slots[i] == 0) m->used++;
    m->slots[i] = slot;
}

/* Zeroed; large areas in huge pages where there are any: a lookup hits one of millions of places. */
static void *area_new(size_t size) {
    if (size < HUGE_PAGE) {
        void *small = NULL;
        if (posix_memalign(&small, LINE, size)) return NULL;
        return memset(small, 0, size);
    }
    size_t room = (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    uint8_t *p = mmap(NULL, room + HUGE_PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    uint8_t *start = (uint8_t *)(((uintptr_t)p + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
    if (start > p) munmap(p, (size_t)(start - p));
    munmap(start + room, (size_t)(p + HUGE_PAGE - start));
    madvise(start, room, MADV_HUGEPAGE);
    return start;
}

static void area_free(void *p, size_t size) {
    if (p && size >= HUGE_PAGE)
        munmap(p, (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
    else
        free(p);
}

static void map_free(struct sn_map *m) {
    if (m->slots) area_free(m->slots, ((size_t)m->mask + 1) * sizeof *m->slots);
    m->slots = NULL;
}

static int map_alloc(struct sn_map *m, uint32_t slots) {
    m->slots = area_new(slots * sizeof *m->slots);
    if (!m->slots) return -1;
    m->mask = slots - 1;
    m->used = 0;
    return 0;
}

static uint64_t entry_hash(const struct sn_table *t, const struct sn_tuple *u,
                           const struct sn_entry *e) {
    uint64_t k[t->words ? t->words : 1];
    for (uint32_t i = 0; i < t->words; i++) k[i] = e->data[i] & u->mask[i];
    return hash_words(k, t->words, t->seed);
}

static void tuple_move(struct sn_table *t, struct sn_tuple *u, uint32_t n) {
    if (!u->old.slots) return;
    for (; n-- && u->old_pos <= u->old.mask; u->old_pos++) {
        uint64_t s = u->old.slots[u->old_pos];
        if (s <= TOMB) continue;
        map_add(&u->now, s, entry_hash(t, u, slot_entry(s)));
        u->old.slots[u->old_pos] = TOMB;
    }
    if (u->old_pos > u->old.mask) {
        map_free(&u->old);
        memset(&u->old, 0, sizeof u->old);
    }
}

/* Before an insertion: room for one more, at most 5/8 full, else start moving to a new array. */
static int tuple_reserve(struct sn_table *t, struct sn_tuple *u) {
    tuple_move(t, u, MOVE_PER_WRITE);
    if ((uint64_t)(u->now.used + 1) * 8 <= (uint64_t)(u->now.mask + 1) * 5) return 0;
    tuple_move(t, u, SN_NONE);
    uint32_t slots = u->now.mask + 1;
    if ((uint64_t)u->count * 16 >= (uint64_t)slots * 5) slots *= 2;
    struct sn_map bigger;
    if (map_alloc(&bigger, slots) < 0) return -1;
    u->old = u->now;
    u->now = bigger;
    u->old_pos = 0;
    return 0;
}

static uint64_t *tuple_slot(struct sn_tuple *u, const uint64_t *key, uint32_t words, uint64_t h) {
    uint64_t *s = map_find(&u->now, key, u->mask, words, h);
    return s ? s : map_find(&u->old, key, u->mask, words, h);
}

/* ---- tuples ------------------------------------------------------------------------------ */

static struct sn_tuple *tuple_find(const struct sn_table *t, const uint64_t *mask) {
    for (uint32_t i = 0; i < t->n_tuples; i++)
        if (!memcmp(t->tuples[i]->mask, mask, t->words * 8)) return t->tuples[i];
    return NULL;
}

static void tuples_sort(struct sn_table *t) {
    for (uint32_t i = 1; i < t->n_tuples; i++) {
        struct sn_tuple *u = t->tuples[i];
        uint32_t j = i;
        for (; j > 0 && t->tuples[j - 1]->rank < u->rank; j--) t->tuples[j] = t->tuples[j - 1];
        t->tuples[j] = u;
    }
}

static struct sn_tuple *tuple_new(struct sn_table *t, const uint64_t *mask) {
    if (t->n_tuples == t->cap_tuples) {
        uint32_t cap = t->cap_tuples ? t->cap_tuples * 2 : 4;
        struct sn_tuple **p = realloc(t->tuples, cap * sizeof *p);
        if (!p) return NULL;
        t->tuples = p, t->cap_tuples = cap;
    }
    struct sn_tuple *u = calloc(1, sizeof *u + t->words * 8);
    if (!u || map_alloc(&u->now, MIN_SLOTS) < 0) {
        free(u);
        return NULL;
    }
    memcpy(u->mask, mask, t->words * 8);
    t->tuples[t->n_tuples++] = u;
    return u;
}

static void tuple_free(struct sn_tuple *u) {
    map_free(&u->now);
    map_free(&u->old);
    free(u);
}

static void tuple_drop(struct sn_table *t, struct sn_tuple *u) {
    for (uint32_t i = 0; i < t->n_tuples; i++)
        if (t->tuples[i] == u) {
            memmove(t->tuples + i, t->tuples + i + 1, (t->n_tuples - i - 1) * sizeof *t->tuples);
            t->n_tuples--;
            break;
        }
    tuple_free(u);
}

/* ---- entries ----------------------------------------------------------------------------- */

static struct sn_entry *place(const struct sn_table *t, uint32_t index) {
    uint8_t *hot = t->chunks[index / CHUNK] + CHUNK * sizeof(struct sn_cold);
    return (struct sn_entry *)(hot + (index % CHUNK) * t->entry_size);
}

struct sn_entry *sn_table_at(struct sn_table *t, uint32_t index) {
    if (index >= t->next_index) return NULL;
    struct sn_entry *e = place(t, index);
    return e->used ? e : NULL;
}

static int chunks_add(struct sn_table *t) {
    size_t chunk = CHUNK * (sizeof(struct sn_cold) + t->entry_size);
    uint32_t n = t->n_chunks < SMALL_CHUNKS || chunk > HUGE_PAGE ? 1 : (uint32_t)(HUGE_PAGE / chunk);
    size_t size = n == 1 ? chunk : HUGE_PAGE;
    uint8_t **chunks = realloc(t->chunks, (t->n_chunks + n) * sizeof *chunks);
    if (chunks) t->chunks = chunks;
    void **areas = realloc(t->areas, (t->n_areas + 1) * sizeof *areas);
    if (areas) t->areas = areas;
    size_t *sizes = realloc(t->area_sizes, (t->n_areas + 1) * sizeof *sizes);
    if (sizes) t->area_sizes = sizes;
    uint8_t *area = chunks && areas && sizes ? area_new(size) : NULL;
    if (!area) return -1;
    areas[t->n_areas] = area;
    sizes[t->n_areas++] = size;
    for (uint32_t i = 0; i < n; i++) t->chunks[t->n_chunks++] = area + i * chunk;
    return 0;
}

static struct sn_entry *entry_alloc(struct sn_table *t) {
    struct sn_entry *e = t->free_list;
    if (e) {
        t->free_list = sn_cold(t, e)->chain;
        return e;
    }
    if (t->next_index / CHUNK == t->n_chunks && chunks_add(t) < 0) return NULL;
    uint32_t index = t->next_index++;
    e = place(t, index);
    e->index = index;
    return e;
}

static void entry_release(struct sn_table *t, struct sn_entry *e) {
    struct sn_cold *cold = sn_cold(t, e);
    free(cold->note);
    cold->note = NULL;
    e->used = 0;
    cold->chain = t->free_list;
    t->free_list = e;
}

/* The key and mask in whole words; the mask that decides the tuple; LPM's prefix length. */
struct normal {
    uint64_t key[32], mask[32], tuple[32];
    uint32_t rank;
};

static int normalize(const struct sn_table *t, const struct sn_table_key *k, struct normal *n) {
    const struct sn_table_desc *d = t->desc;
    memset(n, 0, sizeof *n);
    uint8_t *key = (uint8_t *)n->key, *mask = (uint8_t *)n->mask, *tup = (uint8_t *)n->tuple;
    n->rank = t->by_prio ? k->priority : 0;
    for (uint32_t f = 0; f < d->n_fields; f++) {
        const struct sn_field_desc *fd = &d->fields[f];
        int zeros = 0;
        for (uint32_t i = 0; i < fd->size; i++) {
            uint32_t at = fd->offset + i;
            uint8_t all = i == 0 && fd->bits % 8 ? (uint8_t)((1u << fd->bits % 8) - 1) : 0xff;
            uint8_t m = fd->match == SN_EXACT ? all : (uint8_t)(k->mask[at] & all);
            if (k->key[at] & ~all) return -1;
            mask[at] = m;
            if (fd->match == SN_RANGE) {
                key[at] = k->key[at];
                tup[at] = 0;
                continue;
            }
            key[at] = k->key[at] & m;
            tup[at] = m;
            if (fd->match == SN_LPM) {
                uint8_t gap = (uint8_t)(all & ~m);
                if ((zeros && m) || (gap & (gap + 1))) return -1; /* not a prefix */
                if (gap) zeros = 1;
                if (!t->by_prio) n->rank += (uint32_t)__builtin_popcount(m);
            }
        }
        if (fd->match == SN_RANGE && memcmp(key + fd->offset, mask + fd->offset, fd->size) > 0)
            return -1;
    }
    return 0;
}

static int entry_is(const struct sn_table *t, const struct sn_entry *e, const struct normal *n,
                    uint32_t priority) {
    if (t->exact) return 1;
    return (!t->by_prio || sn_cold(t, e)->priority == priority) && !memcmp(e->data, n->key, t->words * 8) &&
           !memcmp(e->data + t->words, n->mask, t->words * 8);
}

static uint64_t *find_slot(struct sn_table *t, const struct normal *n, struct sn_tuple **tuple) {
    struct sn_tuple *u = tuple_find(t, n->tuple);
    *tuple = u;
    if (!u) return NULL;
    uint64_t k[32];
    for (uint32_t i = 0; i < t->words; i++) k[i] = n->key[i] & u->mask[i];
    return tuple_slot(u, k, t->words, hash_words(k, t->words, t->seed));
}

struct sn_entry *sn_table_find(struct sn_table *t, const struct sn_table_key *k) {
    struct normal n;
    struct sn_tuple *u;
    if (normalize(t, k, &n) < 0) return NULL;
    uint64_t *slot = find_slot(t, &n, &u);
    for (struct sn_entry *e = slot ? slot_entry(*slot) : NULL; e; e = sn_cold(t, e)->chain)
        if (entry_is(t, e, &n, k->priority)) return e;
    return NULL;
}

struct sn_note *sn_note_new(uint64_t number, const uint8_t *bytes, uint32_t len, int *failed) {
    if (!number && !len) return NULL;
    struct sn_note *n = malloc(sizeof *n + len);
    if (!n) {
        *failed = 1;
        return NULL;
    }
    n->number = number;
    n->len = len;
    if (len) memcpy(n->bytes, bytes, len);
    return n;
}

static void entry_set(const struct sn_table *t, struct sn_entry *e, const struct sn_deed *deed,
                      uint64_t now) {
    struct sn_cold *cold = sn_cold(t, e);
    e->action = (uint16_t)deed->action;
    e->last_hit = now;
    cold->timeout = deed->timeout;
    cold->reported = 0;
    cold->note = deed->note;
    memcpy(sn_entry_params(t, e), deed->params, t->desc->params_size[deed->action]);
}

enum sn_status sn_table_insert(struct sn_table *t, const struct sn_table_key *k,
                               const struct sn_deed *deed, uint64_t now, int is_const) {
    struct normal n;
    struct sn_tuple *u;
    if (deed->action >= t->desc->n_actions || normalize(t, k, &n) < 0) return SN_INVALID;
    uint64_t *slot = find_slot(t, &n, &u);
    for (struct sn_entry *e = slot ? slot_entry(*slot) : NULL; e; e = sn_cold(t, e)->chain)
        if (entry_is(t, e, &n, k->priority)) return SN_EXISTS;
    if (t->count >= t->desc->max_entries && !is_const) return SN_FULL;
    if (!u && !(u = tuple_new(t, n.tuple))) return SN_FULL;
    struct sn_entry *e = entry_alloc(t);
    if (!e) return SN_FULL;
    if (t->desc->with_meter) memset(sn_entry_meter(t, e), 0, sizeof(struct sn_meter));
    memcpy(e->data, n.key, t->words * 8);
    if (!t->exact) memcpy(e->data + t->words, n.mask, t->words * 8);
    e->used = 1;
    e->is_const = (uint8_t)is_const;
    e->packets = e->bytes = 0;
    struct sn_cold *cold = sn_cold(t, e);
    cold->priority = k->priority;
    cold->chain = NULL;
    entry_set(t, e, deed, now);
    if (slot) { /* others with the same masked key: keep the chain in priority order */
        struct sn_cold *head = sn_cold(t, slot_entry(*slot));
        if (head->priority < k->priority) {
            cold->chain = slot_entry(*slot);
            *slot = (*slot & ~PTR_MASK) | ((uint64_t)(uintptr_t)e & PTR_MASK);
        } else {
            while (head->chain && sn_cold(t, head->chain)->priority >= k->priority)
                head = sn_cold(t, head->chain);
            cold->chain = head->chain;
            head->chain = e;
        }
    } else {
        if (tuple_reserve(t, u) < 0) {
            cold->note = NULL; /* still the caller's */
            entry_release(t, e);
            return SN_FULL;
        }
        uint64_t h = entry_hash(t, u, e);
        map_add(&u->now, slot_make(e, h), h);
        u->count++;
    }
    t->count++;
    if (u->rank < n.rank) {
        u->rank = n.rank;
        tuples_sort(t);
    }
    return SN_OK;
}

enum sn_status sn_table_modify(struct sn_table *t, const struct sn_table_key *k,
                               const struct sn_deed *deed, uint64_t now) {
    if (deed->action >= t->desc->n_actions) return SN_INVALID;
    struct sn_entry *e = sn_table_find(t, k);
    if (!e) return SN_NOT_FOUND;
    if (e->is_const) return SN_INVALID;
    free(sn_cold(t, e)->note);
    entry_set(t, e, deed, now);
    return SN_OK;
}

enum sn_status sn_table_delete(struct sn_table *t, const struct sn_table_key *k) {
    struct normal n;
    struct sn_tuple *u;
    if (normalize(t, k, &n) < 0) return SN_INVALID;
    uint64_t *slot = find_slot(t, &n, &u);
    struct sn_entry *prev = NULL, *e = slot ? slot_entry(*slot) : NULL;
    for (; e && !entry_is(t, e, &n, k->priority); e = sn_cold(t, e)->chain) prev = e;
    if (!e) return SN_NOT_FOUND;
    if (e->is_const) return SN_INVALID;
    struct sn_entry *next = sn_cold(t, e)->chain;
    if (prev)
        sn_cold(t, prev)->chain = next;
    else if (next)
        *slot = (*slot & ~PTR_MASK) | ((uint64_t)(uintptr_t)next & PTR_MASK);
    else {
        *slot = TOMB;
        u->count--;
        tuple_move(t, u, MOVE_PER_WRITE);
    }
    entry_release(t, e);
    t->count--;
    if (u->count == 0 && !t->exact) tuple_drop(t, u);
    return SN_OK;
}

/* ---- lookup ------------------------------------------------------------------------------ */

static int in_ranges(const struct sn_table *t, const struct sn_entry *e, const uint8_t *key) {
    const struct sn_table_desc *d = t->desc;
    const uint8_t *low = sn_entry_key(e), *high = sn_entry_mask(t, e);
    for (uint32_t f = 0; f < d->n_fields; f++) {
        const struct sn_field_desc *fd = &d->fields[f];
        if (fd->match == SN_RANGE && (memcmp(key + fd->offset, low + fd->offset, fd->size) < 0 ||
                                      memcmp(key + fd->offset, high + fd->offset, fd->size) > 0))
            return 0;
    }
    return 1;
}

static inline uint64_t probe(const struct sn_map *m, const uint64_t *key, const uint64_t *mask,
                             uint32_t words, uint64_t hash) {
    for (uint64_t i = hash & m->mask;; i = (i + 1) & m->mask) {
        uint64_t s = m->slots[i];
        if (s == 0) return 0;
        if (((s ^ hash) & ~PTR_MASK) == 0 && s != TOMB &&
            same_masked(slot_entry(s), key, mask, words))
            return s;
    }
}

static inline struct sn_entry *tuple_lookup(const struct sn_table *t, const struct sn_tuple *u,
                                            const uint64_t *key) {
    uint64_t k[32];
    for (uint32_t i = 0; i < t->words; i++) k[i] = key[i] & u->mask[i];
    uint64_t h = hash_words(k, t->words, t->seed);
    uint64_t s = probe(&u->now, k, u->mask, t->words, h);
    if (!s && SN_UNLIKELY(u->old.slots != NULL)) s = probe(&u->old, k, u->mask, t->words, h);
    return s ? slot_entry(s) : NULL;
}

/* As probe(), where every bit of the key counts. */
static inline uint64_t probe_exact(const struct sn_map *m, const uint64_t *key, uint32_t words,
                                   uint64_t hash) {
    for (uint64_t i = hash & m->mask;; i = (i + 1) & m->mask) {
        uint64_t s = m->slots[i];
        if (s == 0) return 0;
        if (((s ^ hash) & ~PTR_MASK) || s == TOMB) continue;
        const struct sn_entry *e = slot_entry(s);
        uint64_t differs = 0;
        for (uint32_t w = 0; w < words; w++) differs |= e->data[w] ^ key[w];
        if (!differs) return s;
    }
}

struct sn_entry *sn_table_resume(struct sn_table *t, const uint64_t *key, uint64_t h) {
    const struct sn_tuple *u = t->tuples[0];
    uint64_t s = probe_exact(&u->now, key, t->words, h);
    if (!s && SN_UNLIKELY(u->old.slots != NULL)) s = probe_exact(&u->old, key, t->words, h);
    return s ? slot_entry(s) : NULL;
}

struct sn_entry *sn_table_lookup(struct sn_table *t, const uint64_t *key) {
    struct sn_entry *best = NULL;
    if (t->exact)
        return t->n_tuples ? sn_table_resume(t, key, hash_words(key, t->words, t->seed)) : NULL;
    for (uint32_t i = 0; i < t->n_tuples; i++) {
        const struct sn_tuple *u = t->tuples[i];
        if (best && (!t->by_prio || sn_cold(t, best)->priority >= u->rank)) break;
        struct sn_entry *e = tuple_lookup(t, u, key);
        if (t->has_range)
            while (e && !in_ranges(t, e, (const uint8_t *)key)) e = sn_cold(t, e)->chain;
        if (e && (!best || sn_cold(t, e)->priority > sn_cold(t, best)->priority)) best = e;
    }
    return best;
}

/* ---- ahead of a lookup ------------------------------------------------------------------- */

int sn_table_is_large(const struct sn_table *t) {
    return t->exact && t->count && t->count >= SN_LARGE;
}

int sn_table_may_be_large(const struct sn_table *t) {
    return t->exact && t->words && t->desc->max_entries >= SN_LARGE;
}

void sn_table_ahead(struct sn_ctx *c, uint32_t table, const uint64_t *key) {
    const struct sn_table *t = &c->pipe->tables[table];
    if (!sn_table_is_large(t)) return;
    const struct sn_map *m = &t->tuples[0]->now;
    c->ahead_table = t;
    c->ahead_hash = hash_words(key, t->words, t->seed);
    __builtin_prefetch(&m->slots[c->ahead_hash & m->mask]);
}

void sn_table_fetch(struct sn_ctx *c) {
    const struct sn_table *t = c->ahead_table;
    if (!t) return;
    const struct sn_map *m = &t->tuples[0]->now;
    for (uint64_t i = c->ahead_hash & m->mask;; i = (i + 1) & m->mask) {
        uint64_t s = m->slots[i];
        if (s == 0) return;
        if (((s ^ c->ahead_hash) & ~PTR_MASK) || s == TOMB) continue;
        const uint8_t *e = (const uint8_t *)slot_entry(s);
        for (uint32_t at = 0; at < t->entry_size && at < MOST_FETCHED; at += LINE)
            __builtin_prefetch(e + at, 1);
        return;
    }
}

/* ---- life -------------------------------------------------------------------------------- */

int sn_table_init(struct sn_table *t, const struct sn_table_desc *d, uint64_t seed) {
    memset(t, 0, sizeof *t);
    t->desc = d;
    t->words = (d->key_size + 7) / 8;
    t->seed = seed;
    t->exact = 1;
    for (uint32_t f = 0; f < d->n_fields; f++) {
        uint32_t m = d->fields[f].match;
        if (m != SN_EXACT) t->exact = 0;
        if (m == SN_RANGE) t->has_range = 1;
        if (m == SN_RANGE || m == SN_TERNARY || m == SN_OPTIONAL) t->by_prio = 1;
    }
    t->entry_size = sizeof(struct sn_entry) + t->words * 8 * (t->exact ? 1 : 2) +
                    (d->max_params + 7) / 8 * 8;
    if (d->with_meter) t->entry_size += sizeof(struct sn_meter) + 16;
    /* To whole lines, unless that costs much more than it saves. */
    size_t lines = (t->entry_size + LINE - 1) / LINE * LINE;
    if (t->entry_size < LINE || lines - t->entry_size <= t->entry_size / 8) t->entry_size = lines;
    t->default_params = calloc(1, d->max_params + 8);
    if (d->with_meter) t->default_meter = calloc(1, sizeof *t->default_meter);
    if (!t->default_params || (d->with_meter && !t->default_meter)) return -1;
    t->default_action = d->default_action;
    if (d->default_action < d->n_actions && d->default_params)
        memcpy(t->default_params, d->default_params, d->params_size[d->default_action]);
    return 0;
}

void sn_table_free(struct sn_table *t) {
    for (uint32_t i = 0; i < t->next_index; i++) {
        struct sn_entry *e = sn_table_at(t, i);
        if (e) free(sn_cold(t, e)->note);
    }
    for (uint32_t i = 0; i < t->n_tuples; i++) tuple_free(t->tuples[i]);
    for (uint32_t i = 0; i < t->n_areas; i++) area_free(t->areas[i], t->area_sizes[i]);
    free(t->areas);
    free(t->area_sizes);
    free(t->tuples);
    free(t->chunks);
    free(t->default_params);
    free(t->default_meter);
}
