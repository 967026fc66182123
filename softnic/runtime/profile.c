/*
 * Action profiles: members (an action with its parameters) that entries share, and groups of
 * members among which a hash of the packet chooses. Both are found by id in sorted arrays. What
 * an entry or a group refers to can't be deleted, so a packet never finds a dangling id.
 *
 *     entry --$member id--> member --> action, parameters
 *     entry --$group id---> group --hash % slots--> member (a slot for each unit of weight)
 */
#include <string.h>

#include "internal.h"

#define MAX_SLOTS 65536u

static uint32_t position(void *const *items, uint32_t n, uint32_t id) {
    uint32_t low = 0;
    while (low < n) {
        uint32_t mid = low + (n - low) / 2;
        if (*(const uint32_t *)items[mid] < id)
            low = mid + 1;
        else
            n = mid;
    }
    return low;
}

static void *find(const struct sn_id_list *l, uint32_t id) {
    uint32_t i = position(l->items, l->n, id);
    return i < l->n && *(const uint32_t *)l->items[i] == id ? l->items[i] : NULL;
}

static int add(struct sn_id_list *l, uint32_t id, void *item) {
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? 2 * l->cap : 16;
        void **p = realloc(l->items, cap * sizeof *p);
        if (!p) return -1;
        l->items = p, l->cap = cap;
    }
    uint32_t i = position(l->items, l->n, id);
    memmove(l->items + i + 1, l->items + i, (l->n - i) * sizeof *l->items);
    l->items[i] = item;
    l->n++;
    return 0;
}

static void take(struct sn_id_list *l, uint32_t id) {
    uint32_t i = position(l->items, l->n, id);
    l->n--;
    memmove(l->items + i, l->items + i + 1, (l->n - i) * sizeof *l->items);
}

enum sn_status sn_member_set(struct sn_profile *p, uint32_t id, uint32_t action,
                             const uint8_t *params) {
    const struct sn_profile_desc *d = p->desc;
    if (action >= d->n_actions) return SN_INVALID;
    struct sn_member *m = find(&p->members, id);
    if (!m) {
        if (p->members.n >= d->max_size) return SN_FULL;
        m = calloc(1, sizeof *m + d->max_params + 8);
        if (!m) return SN_FULL;
        m->id = id;
        if (add(&p->members, id, m) < 0) {
            free(m);
            return SN_FULL;
        }
    }
    m->action = action;
    memcpy(m->params, params, d->params_size[action]);
    return SN_OK;
}

enum sn_status sn_member_delete(struct sn_profile *p, uint32_t id) {
    struct sn_member *m = find(&p->members, id);
    if (!m) return SN_NOT_FOUND;
    if (m->refs) return SN_IN_USE;
    take(&p->members, id);
    free(m);
    return SN_OK;
}

static void release_slots(struct sn_choice *g) {
    for (uint32_t i = 0; i < g->n; i++) g->slots[i].member->refs--;
    free(g->slots);
    g->slots = NULL;
    g->n = 0;
}

/* rows: member, weight, watched port (SN_NONE: none), `n` times. */
enum sn_status sn_choice_set(struct sn_profile *p, uint32_t id, const uint32_t *rows, uint32_t n) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!find(&p->members, rows[3 * i]) || rows[3 * i + 1] == 0) return SN_INVALID;
        total += rows[3 * i + 1];
    }
    if (total > MAX_SLOTS) return SN_FULL;
    struct sn_choice *g = find(&p->groups, id);
    struct sn_slot *slots = calloc(total + 1, sizeof *slots);
    if (!slots) return SN_FULL;
    if (!g) {
        g = calloc(1, sizeof *g);
        if (g) g->id = id;
        if (!g || add(&p->groups, id, g) < 0) {
            free(g);
            free(slots);
            return SN_FULL;
        }
    }
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < rows[3 * i + 1]; k++) {
            slots[at] = (struct sn_slot){find(&p->members, rows[3 * i]), rows[3 * i + 2]};
            slots[at++].member->refs++;
        }
    release_slots(g);
    g->slots = slots;
    g->n = at;
    return SN_OK;
}

enum sn_status sn_choice_delete(struct sn_profile *p, uint32_t id) {
    struct sn_choice *g = find(&p->groups, id);
    if (!g) return SN_NOT_FOUND;
    if (g->refs) return SN_IN_USE;
    take(&p->groups, id);
    release_slots(g);
    free(g);
    return SN_OK;
}

/* An entry's action in a table with a profile: the two after the profile's own. */
int sn_profile_ref(struct sn_profile *p, uint32_t action, const uint8_t *params, int by) {
    uint32_t id = (uint32_t)sn_ld32(params);
    struct sn_member *m = action == p->desc->n_actions ? find(&p->members, id) : NULL;
    struct sn_choice *g = action == p->desc->n_actions + 1 ? find(&p->groups, id) : NULL;
    if (m) m->refs += (uint32_t)by;
    if (g) g->refs += (uint32_t)by;
    return m || g ? 0 : -1;
}

static struct sn_member *choose(struct sn_ctx *c, const struct sn_choice *g, uint64_t hash) {
    uint32_t live = 0;
    for (uint32_t i = 0; i < g->n; i++) live += sn_port_up(c->pipe->dev, g->slots[i].watch);
    if (!live) return NULL;
    uint64_t left = hash % live;
    for (uint32_t i = 0; i < g->n; i++)
        if (sn_port_up(c->pipe->dev, g->slots[i].watch) && left-- == 0) return g->slots[i].member;
    return NULL;
}

struct sn_result sn_profile_pick(struct sn_ctx *c, uint32_t profile, struct sn_result r,
                                 uint64_t hash) {
    struct sn_profile *p = &c->pipe->profiles[profile];
    if (!r.hit || r.action < p->desc->n_actions || r.action == SN_NONE) return r;
    uint32_t id = (uint32_t)sn_ld32(r.params);
    struct sn_member *m = NULL;
    if (r.action == p->desc->n_actions) {
        m = find(&p->members, id);
    } else {
        const struct sn_choice *g = find(&p->groups, id);
        m = g ? choose(c, g, hash) : NULL;
    }
    /* Nobody in the group can be chosen: a hit that does nothing. */
    return m ? (struct sn_result){m->params, m->action, 1, r.metered}
             : (struct sn_result){NULL, SN_NONE, 1, r.metered};
}

void sn_profile_free(struct sn_profile *p) {
    for (uint32_t i = 0; i < p->groups.n; i++) {
        free(((struct sn_choice *)p->groups.items[i])->slots);
        free(p->groups.items[i]);
    }
    for (uint32_t i = 0; i < p->members.n; i++) free(p->members.items[i]);
    free(p->groups.items);
    free(p->members.items);
}
