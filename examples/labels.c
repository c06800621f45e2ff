/* Prints each message as it arrives, and a line where messages were lost.
 *
 *   cc -o labels examples/labels.c -lzmq      (Debian: apt-get install libzmq3-dev)
 *   ./labels ipc:///run/perceiverd/labels scores/door/
 *
 * For a daemon that encrypts, set three keys in the environment, which no list of processes shows: SERVER_KEY (the
 * daemon's public key), PUBLIC_KEY and SECRET_KEY. Each is the 40 characters between the quotes in the key's file.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define LONGEST_TOPIC 128
#define LONGEST_BODY (1 << 20)
#define TOPICS 256

static struct {
    char topic[LONGEST_TOPIC];
    char boot_id[33];
    long seq;
} last[TOPICS];

static void fail(const char *what)
{
    fprintf(stderr, "labels: %s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(1);
}

/* The daemon writes `boot_id` and `seq` without spaces and after all texts, so the last match is the key. */
static const char *value_of(const char *body, const char *key)
{
    const char *found = NULL, *at = body;
    while ((at = strstr(at, key)))
        found = at += strlen(key);
    return found;
}

/* Report the messages lost between the last one of this topic and this one. Returns 0 for a repetition. */
static int is_new(const char *topic, const char *body)
{
    const char *boot_id = value_of(body, "\"boot_id\":\""), *number = value_of(body, "\"seq\":");
    if (!boot_id || !number || strlen(boot_id) < 32)
        return 0;
    long seq = strtol(number, NULL, 10);
    int i = 0;
    while (i < TOPICS && last[i].topic[0] && strcmp(last[i].topic, topic))
        i++;
    if (i == TOPICS)
        return 1;
    int known = last[i].topic[0] && !strncmp(last[i].boot_id, boot_id, 32);
    if (known && seq <= last[i].seq)
        return 0;
    /* A repetition for a new subscriber has its original number. Messages before it are not lost. */
    if (strstr(body, "\"repeated\":true"))
        return 1;
    if (known && seq > last[i].seq + 1)
        printf("%ld messages of %s were lost\n", seq - last[i].seq - 1, topic);
    if (last[i].topic[0] && !known)
        printf("the daemon was restarted\n");
    snprintf(last[i].topic, sizeof last[i].topic, "%s", topic);
    snprintf(last[i].boot_id, sizeof last[i].boot_id, "%.32s", boot_id);
    last[i].seq = seq;
    return 1;
}

static void encrypt(void *socket)
{
    const char *server = getenv("SERVER_KEY"), *public_key = getenv("PUBLIC_KEY"), *secret = getenv("SECRET_KEY");
    if (!server || !public_key || !secret)
        return;
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server, strlen(server) + 1)
        || zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, public_key, strlen(public_key) + 1)
        || zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret, strlen(secret) + 1))
        fail("setting the keys");
}

int main(int count, char **words)
{
    if (count < 2) {
        fprintf(stderr, "usage: labels ENDPOINT [TOPIC]\n");
        return 2;
    }
    const char *prefix = count > 2 ? words[2] : "";
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_SUB);
    encrypt(socket);
    zmq_setsockopt(socket, ZMQ_SUBSCRIBE, prefix, strlen(prefix));
    if (zmq_connect(socket, words[1]))
        fail(words[1]);

    static char topic[LONGEST_TOPIC], body[LONGEST_BODY];
    for (;;) {
        int length = zmq_recv(socket, topic, sizeof topic - 1, 0);
        if (length < 0)
            fail("receiving");
        topic[length < (int)sizeof topic - 1 ? length : (int)sizeof topic - 1] = 0;
        length = zmq_recv(socket, body, sizeof body - 1, 0);
        if (length < 0)
            fail("receiving");
        if (length >= (int)sizeof body)
            continue; /* too long for our buffer */
        body[length] = 0;
        if (is_new(topic, body))
            printf("%s %s\n", topic, body);
        fflush(stdout);
    }
}
