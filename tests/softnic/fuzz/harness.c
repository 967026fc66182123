/*
 * Frames through a program, memory to memory, to be built with sanitizers: with libFuzzer
 * (docs/softnic.md says how), or with -DSTANDALONE as a program that mutates frames by itself.
 *
 *     port | flags | csum_start | csum_offset | actions | frame ...
 *
 * flags: 1 a checksum to be completed, 2 a TCP super-segment, 4 a burst of that frame. actions: the
 * default action of each table, so that actions run although the tables have one entry each.
 * SN_RUNTIME and SN_PROGRAM name the shared objects.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

#define HEAD 5u
#define MOST 4096u
#define COPIES 5u

static struct sn_device *device;
static const struct sn_program *program;
static uint8_t out[8u << 20];
static int64_t (*inject)(struct sn_device *, uint32_t, const uint8_t *, uint32_t,
                         const struct virtio_net_hdr *, uint8_t *, uint64_t);
static int64_t (*inject_burst)(struct sn_device *, const uint32_t *, const uint8_t *,
                               const uint32_t *, uint32_t, uint8_t *, uint64_t);
static uint32_t (*set_default)(struct sn_device *, uint32_t, uint32_t, const uint8_t *);
static uint64_t (*events)(struct sn_device *, uint8_t *, uint64_t, int64_t);

static void *symbol(void *lib, const char *name) {
    void *p = lib ? dlsym(lib, name) : NULL;
    if (!p) fprintf(stderr, "%s: %s\n", name, dlerror());
    if (!p) exit(2);
    return p;
}

/* An entry that matches zeros, so that there is a lookup to be foreseen. */
static void add_entry(void (*write)(struct sn_device *, const uint8_t *, uint32_t, uint8_t *),
                      uint32_t table) {
    struct {
        uint32_t size;
        uint16_t op, action;
        uint32_t table, priority;
        uint64_t timeout, note_number;
        uint32_t note_len, unused;
        uint8_t data[1024];
    } record = {sizeof record, 1, 0, table, 1, 0, 0, 0, 0, {0}};
    uint8_t status;
    memset(record.data + program->tables[table].key_size, 0xff, program->tables[table].key_size);
    write(device, (const uint8_t *)&record, 1, &status);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    void *r = dlopen(getenv("SN_RUNTIME"), RTLD_NOW | RTLD_GLOBAL);
    void *g = dlopen(getenv("SN_PROGRAM"), RTLD_NOW);
    struct sn_device *(*make)(uint32_t, uint32_t) = symbol(r, "sn_device_new");
    int (*load)(struct sn_device *, const struct sn_program *) = symbol(r, "sn_device_load");
    int (*group)(struct sn_device *, int, uint32_t, const uint32_t *, uint32_t, uint32_t) =
        symbol(r, "sn_group_set");
    inject = symbol(r, "sn_inject");
    inject_burst = symbol(r, "sn_inject_burst");
    set_default = symbol(r, "sn_default_set");
    void (*write)(struct sn_device *, const uint8_t *, uint32_t, uint8_t *) = symbol(r, "sn_write");
    events = symbol(r, "sn_events");
    program = symbol(g, "sn_program");
    device = make(510, 511);
    if (!device || load(device, program) != 0) return 2;
    for (uint32_t t = 0; t < program->n_tables; t++)
        if (program->tables[t].profile == SN_NONE && program->tables[t].key_size <= 256)
            add_entry(write, t);
    const uint32_t replicas[] = {1, 1, 1, 1, 510, 2, 1, 1, 3}; /* ways, then port and instance */
    for (uint32_t id = 0; id < 128; id++) {
        group(device, 0, id, replicas, 3, 0);
        group(device, 1, id, replicas, 1 + id % 3, id % 2 ? 60 : 0);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t zeros[512];
    if (size < HEAD + 1 || size > HEAD + MOST) return 0;
    struct virtio_net_hdr v = {0};
    if (data[1] & 1) {
        v.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        v.csum_start = data[2];
        v.csum_offset = data[3];
    }
    if (data[1] & 2) {
        v.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
        v.gso_size = 100;
    }
    for (uint32_t t = 0; t < program->n_tables; t++) {
        const struct sn_table_desc *d = &program->tables[t];
        if (d->n_actions && d->max_params <= sizeof zeros && d->profile == SN_NONE)
            set_default(device, t, (data[4] + t) % d->n_actions, zeros);
    }
    /* A copy of exactly this size: reading past it is seen. */
    size_t n = size - HEAD, copies = data[1] & 4 ? COPIES : 1;
    uint32_t port = data[0] == 0xff ? 510 : data[0], ports[COPIES], lens[COPIES];
    uint8_t *frames = malloc(copies * n);
    if (!frames) return 0;
    for (size_t i = 0; i < copies; i++) {
        memcpy(frames + i * n, data + HEAD, n);
        ports[i] = port;
        lens[i] = (uint32_t)n;
    }
    int64_t came = copies == 1
                       ? inject(device, port, frames, (uint32_t)n, &v, out, sizeof out)
                       : inject_burst(device, ports, frames, lens, COPIES, out, sizeof out);
    if (came < 0) abort();
    free(frames);
    events(device, out, sizeof out, 0);
    return 0;
}

#ifdef STANDALONE
static uint64_t state = 1;

static uint32_t any(uint32_t below) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16) % below;
}

static size_t mutate(uint8_t *p, size_t n) {
    static const uint8_t edges[] = {0, 1, 2, 5, 0x45, 0x46, 0x4f, 0x7f, 0x80, 0xff, 6, 17, 8};
    for (uint32_t k = 1 + any(6); k-- > 0;) {
        uint32_t at = any((uint32_t)n), how = any(8);
        if (how < 3) p[at] ^= (uint8_t)(1u << any(8));
        else if (how < 5) p[at] = edges[any(sizeof edges)];
        else if (how < 6) p[at] = (uint8_t)any(256);
        else if (how < 7 && n > HEAD + 2) n = HEAD + 1 + any((uint32_t)(n - HEAD));
        else if (n < MOST / 2) memmove(p + n, p + at, n - at), n += n - at;
    }
    return n;
}

/* fuzz COUNT FILE...: runs each file, then COUNT mutations of them. */
int main(int argc, char **argv) {
    static uint8_t corpus[64][HEAD + MOST], work[2 * (HEAD + MOST)];
    static size_t sizes[64];
    uint32_t n = 0;
    if (argc < 3 || LLVMFuzzerInitialize(&argc, &argv) != 0) return 2;
    for (int i = 2; i < argc && n < 64; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (!f) return 2;
        sizes[n] = fread(corpus[n], 1, sizeof corpus[n], f);
        fclose(f);
        if (sizes[n] > HEAD) n++;
    }
    if (n == 0) return 2;
    for (uint32_t i = 0; i < n; i++) LLVMFuzzerTestOneInput(corpus[i], sizes[i]);
    for (long left = atol(argv[1]); left > 0; left--) {
        uint32_t i = any(n);
        memcpy(work, corpus[i], sizes[i]);
        size_t size = mutate(work, sizes[i]);
        LLVMFuzzerTestOneInput(work, size);
    }
    return 0;
}
#endif
