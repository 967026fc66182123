/*
 * Two-rate three-colour meters (RFC 2698, colour-blind), with bmv2's colours: 0 green, 1 yellow,
 * 2 red. Tokens are kept in billionths, so that any rate is exact at any interval.
 */
#include "internal.h"

#define NANO 1000000000ull

static sn_u128 refill(sn_u128 tokens, uint64_t rate, uint64_t burst, uint64_t elapsed) {
    sn_u128 full = (sn_u128)burst * NANO, more = tokens + (sn_u128)rate * elapsed;
    return more < full ? more : full;
}

static uint32_t color_of(struct sn_meter *m, uint64_t units, uint64_t now) {
    if (!m->configured) return 0;
    uint64_t elapsed = now > m->last ? now - m->last : 0;
    sn_u128 want = (sn_u128)units * NANO;
    m->last += elapsed;
    m->peak = refill(m->peak, m->rates.pir, m->rates.pburst, elapsed);
    m->committed = refill(m->committed, m->rates.cir, m->rates.cburst, elapsed);
    if (m->peak < want) return 2;
    m->peak -= want;
    if (m->committed < want) return 1;
    m->committed -= want;
    return 0;
}

uint32_t sn_meter_run(struct sn_meter *m, uint32_t kind, uint32_t bytes, uint64_t now) {
    uint32_t color = color_of(m, kind == SN_METER_BYTES ? bytes : 1, now);
    m->colors[color].packets++;
    m->colors[color].bytes += bytes;
    return color;
}

void sn_meter_set(struct sn_meter *m, const struct sn_rates *r, uint64_t now) {
    m->configured = r != NULL;
    if (!r) return;
    m->rates = *r;
    m->last = now;
    m->peak = (sn_u128)r->pburst * NANO;
    m->committed = (sn_u128)r->cburst * NANO;
}

uint32_t sn_meter(struct sn_ctx *c, uint32_t meter, uint64_t index, uint32_t color) {
    const struct sn_array_desc *d = &c->pipe->prog->meters[meter];
    if (SN_UNLIKELY(index >= d->cells)) {
        sn_note(c, SN_EV_INDEX);
        return color;
    }
    return sn_meter_run(&c->pipe->meters[meter][index], d->bits, c->ingress_len, c->now_ns);
}
