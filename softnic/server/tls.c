/* Bytes in and out of a connection, encrypted or not. */
#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "server.h"

static int pick_h2(SSL *ssl, const unsigned char **out, unsigned char *n, const unsigned char *in,
                   unsigned in_n, void *arg) {
    (void)ssl, (void)arg;
    for (unsigned at = 0; at < in_n; at += 1u + in[at])
        if (in[at] == 2 && at + 3 <= in_n && !memcmp(in + at + 1, "h2", 2)) {
            *out = in + at + 1;
            *n = 2;
            return SSL_TLSEXT_ERR_OK;
        }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int failed(const char *what, const char *file, char *why, size_t cap) {
    unsigned long e = ERR_peek_last_error();
    const char *text = e ? ERR_reason_error_string(e) : NULL;
    snprintf(why, cap, "%s %s: %s", what, file, text ? text : "no PEM that fits");
    ERR_clear_error();
    return 0;
}

static int configure(SSL_CTX *x, const char *cert, const char *key, const char *ca, int client_auth,
                     char *why, size_t cap) {
    SSL_CTX_set_min_proto_version(x, TLS1_2_VERSION);
    SSL_CTX_set_options(x, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(x, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_select_cb(x, pick_h2, NULL);
    if (SSL_CTX_use_certificate_chain_file(x, cert) != 1)
        return failed("the certificate", cert, why, cap);
    if (SSL_CTX_use_PrivateKey_file(x, key, SSL_FILETYPE_PEM) != 1)
        return failed("the key", key, why, cap);
    if (SSL_CTX_check_private_key(x) != 1)
        return failed("the certificate is not of this key:", key, why, cap);
    if (!client_auth) return 1;
    if (SSL_CTX_load_verify_locations(x, ca, NULL) != 1)
        return failed("the certificates of authorities", ca, why, cap);
    SSL_CTX_set_client_CA_list(x, SSL_load_client_CA_file(ca));
    SSL_CTX_set_verify(x, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    static const unsigned char context[] = "softnic"; /* else resumed sessions are refused */
    SSL_CTX_set_session_id_context(x, context, sizeof context - 1);
    return 1;
}

/* Files in PEM; `ca` only where clients must show a certificate. NULL: `why` tells. */
SSL_CTX *tls_new(const char *cert, const char *key, const char *ca, int client_auth, char *why,
                 size_t cap) {
    SSL_CTX *x = SSL_CTX_new(TLS_server_method());
    if (!x) {
        snprintf(why, cap, "no TLS: out of memory");
        return NULL;
    }
    if (configure(x, cert, key, ca, client_auth, why, cap)) return x;
    SSL_CTX_free(x);
    return NULL;
}

int tls_accept(struct conn *c) {
    if (!c->server->tls) return 0;
    c->ssl = SSL_new(c->server->tls);
    if (!c->ssl || SSL_set_fd(c->ssl, c->fd) != 1) return -1;
    SSL_set_accept_state(c->ssl);
    return 0;
}

static ssize_t tls_result(struct conn *c, int rc) {
    int e = SSL_get_error(c->ssl, rc);
    ERR_clear_error();
    switch (e) {
    case SSL_ERROR_WANT_READ: return IO_AGAIN;
    case SSL_ERROR_WANT_WRITE: c->wants_write = 1; return IO_AGAIN;
    case SSL_ERROR_ZERO_RETURN: return 0;
    default: return IO_FAILED;
    }
}

ssize_t io_read(struct conn *c, uint8_t *buf, size_t n) {
    if (c->ssl) {
        ERR_clear_error();
        int rc = SSL_read(c->ssl, buf, (int)n);
        return rc > 0 ? rc : tls_result(c, rc);
    }
    ssize_t rc = recv(c->fd, buf, n, 0);
    if (rc >= 0) return rc;
    return errno == EAGAIN || errno == EINTR ? IO_AGAIN : IO_FAILED;
}

ssize_t io_write(struct conn *c, const uint8_t *buf, size_t n) {
    if (c->ssl) {
        ERR_clear_error();
        int rc = SSL_write(c->ssl, buf, (int)n);
        if (rc > 0) return rc;
        ssize_t why = tls_result(c, rc);
        return why ? why : IO_FAILED;
    }
    ssize_t rc = send(c->fd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (rc >= 0) return rc;
    if (errno != EAGAIN && errno != EINTR) return IO_FAILED;
    c->wants_write = 1;
    return IO_AGAIN;
}
