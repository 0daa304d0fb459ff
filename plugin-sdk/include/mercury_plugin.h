/* The boundary between a plugin and its host, for plugins in C.

   Generated from the types in plugin-sdk/src/abi; do not edit. `MERCURY_WRITE_HEADER=1 cargo test
   -p plugin-sdk c_header` writes it anew. mercury_blocking.h, beside this file, has functions that
   make it bearable: a plugin written with it blocks, and never sees a task or a waker.

   Neither side lets an exception of its language out of a function that the other one calls. */
#ifndef MERCURY_PLUGIN_H
#define MERCURY_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MERCURY_MAGIC UINT64_C(0x6d726379706c7567)
#define MERCURY_ABI_MAJOR 1u
#define MERCURY_ABI_MINOR 0u
#define MERCURY_EXPORT mercury_c_plugin_v1

#define MERCURY_OK 0u
#define MERCURY_ERROR 1u
#define MERCURY_REVOKED 2u
#define MERCURY_FINISHED 3u
#define MERCURY_SINK_OK 0u
#define MERCURY_SINK_CLOSED 1u
#define MERCURY_SINK_TOO_LARGE 2u
#define MERCURY_SINK_NOT_READY 3u
#define MERCURY_LOG_EVENT 0u
#define MERCURY_LOG_OPEN 1u
#define MERCURY_LOG_CLOSE 2u

typedef struct mercury_c_plugin mercury_c_plugin;
typedef struct mercury_bytes mercury_bytes;
typedef struct mercury_outcome_bytes mercury_outcome_bytes;
typedef struct mercury_c_host mercury_c_host;
typedef struct mercury_instance mercury_instance;
typedef struct mercury_outcome_instance mercury_outcome_instance;
typedef struct mercury_host mercury_host;
typedef struct mercury_call mercury_call;
typedef struct mercury_task mercury_task;
typedef struct mercury_str mercury_str;
typedef struct mercury_log mercury_log;
typedef struct mercury_waker mercury_waker;
typedef struct mercury_sink mercury_sink;
typedef struct mercury_source mercury_source;
typedef struct mercury_descriptor mercury_descriptor;
typedef struct mercury_object mercury_object;
typedef struct mercury_reply mercury_reply;
typedef struct mercury_poll_reply mercury_poll_reply;
typedef struct mercury_buffer mercury_buffer;
typedef struct mercury_lend mercury_lend;
typedef struct mercury_poll_lend mercury_poll_lend;
typedef struct mercury_poll_uint8_t mercury_poll_uint8_t;

/* What a plugin exports, as MERCURY_EXPORT. A host reads no field beyond
   struct_size. */
struct mercury_c_plugin {
  uint64_t magic;
  uint32_t abi_major;
  uint32_t abi_minor;
  size_t struct_size;
  mercury_outcome_bytes (*manifest)(void);
  mercury_outcome_instance (*init)(const mercury_c_host *, mercury_bytes);
  mercury_task (*start)(const void *, mercury_call);
};

/* Bytes that their maker frees: whoever holds them calls release(owner) once, on any
   thread, and never frees them otherwise. release is never null. */
struct mercury_bytes {
  const uint8_t *ptr;
  size_t len;
  void *owner;
  void (*release)(void *);
};

/* A value, an error document, or (MERCURY_OUTCOME_PANICKED) an explanation why
   there is neither. */
#define MERCURY_OUTCOME_OK 0u
#define MERCURY_OUTCOME_ERROR 1u
#define MERCURY_OUTCOME_PANICKED 2u
struct mercury_outcome_bytes {
  uint8_t tag;
  union {
    mercury_bytes ok;
    mercury_bytes error;
    mercury_bytes panicked;
  } as;
};

/* What a host shows a plugin for as long as the library is loaded. Read no field
   beyond struct_size. */
struct mercury_c_host {
  uint64_t magic;
  uint32_t abi_major;
  uint32_t abi_minor;
  size_t struct_size;
  const void *data;
  bool (*log_enabled)(const void *, uint8_t, mercury_str);
  void (*log)(const void *, mercury_log);
};

/* An initialised plugin. The host calls drop once, when no request is left. */
struct mercury_instance {
  const void *data;
  void (*drop)(const void *);
};

/* See mercury_outcome_bytes. */
struct mercury_outcome_instance {
  uint8_t tag;
  union {
    mercury_instance ok;
    mercury_bytes error;
    mercury_bytes panicked;
  } as;
};

/* The host, for the time of one request. call: any thread, several at once. drop: once. */
struct mercury_host {
  const void *data;
  mercury_task (*call)(const void *, mercury_str, mercury_bytes);
  void (*drop)(const void *);
};

/* One request. The plugin owns all of it. */
struct mercury_call {
  mercury_bytes request;
  mercury_host host;
  uint64_t id;
};

/* Work in progress. poll: one thread at a time; a pending answer means that the waker
   (or the clone that was kept of it) will be woken. cancel: a request, at any time before drop, from
   any thread. drop: once, abandons what is left. */
struct mercury_task {
  void *data;
  mercury_poll_reply (*poll)(void *, const mercury_waker *);
  void (*cancel)(const void *);
  void (*drop)(void *);
};

/* Text on loan for the time of the call that it is passed to. UTF-8, without a
   final zero. */
struct mercury_str {
  const uint8_t *ptr;
  size_t len;
};

/* One record of the log: kind MERCURY_LOG_*, level 1 (error) to 5 (trace). */
struct mercury_log {
  uint8_t kind;
  uint8_t level;
  uint32_t line;
  uint64_t span;
  uint64_t parent;
  uint64_t call;
  mercury_str name;
  mercury_str target;
  mercury_str file;
  mercury_str message;
  mercury_str fields;
};

/* How whoever polls is told to poll again. Its functions take the address of the
   waker itself; clone gives the address to keep, wake and drop give it up. */
struct mercury_waker {
  const mercury_waker *(*clone)(const mercury_waker *);
  void (*wake)(const mercury_waker *);
  void (*wake_by_ref)(const mercury_waker *);
  void (*drop)(const mercury_waker *);
};

/* Where a stream's bytes go. One call at a time. A chunk of one's own memory is sent
   only after poll_ready; a filled loan at any time. finish: once, the reply's body is the receipt. */
struct mercury_sink {
  void *data;
  mercury_poll_lend (*poll_buffer)(void *, uint64_t, const mercury_waker *);
  mercury_poll_uint8_t (*poll_ready)(void *, const mercury_waker *);
  uint8_t (*send)(void *, mercury_bytes);
  mercury_task (*finish)(void *);
  void (*drop)(void *);
};

/* Bytes to read at any position; several reads may be under way. */
struct mercury_source {
  const void *data;
  uint64_t len;
  mercury_task (*read_at)(const void *, uint64_t, uint64_t);
  void (*drop)(const void *);
};

/* An open file, pipe or connection; whoever holds it closes it. */
struct mercury_descriptor {
  int64_t raw;
};

/* What a reply hands over. */
#define MERCURY_OBJECT_NONE 0u
#define MERCURY_OBJECT_SINK 1u
#define MERCURY_OBJECT_SOURCE 2u
#define MERCURY_OBJECT_DESCRIPTOR 3u
struct mercury_object {
  uint8_t tag;
  union {
    mercury_sink sink;
    mercury_source source;
    mercury_descriptor descriptor;
  } as;
};

/* The answer to a request or a call. The body is a JSON document: the reply's, or with
   MERCURY_ERROR a fault's. */
struct mercury_reply {
  uint8_t status;
  mercury_bytes body;
  mercury_object object;
};

/* The answer to a poll. */
#define MERCURY_POLL_PENDING 0u
#define MERCURY_POLL_READY 1u
#define MERCURY_POLL_PANICKED 2u
struct mercury_poll_reply {
  uint8_t tag;
  union {
    mercury_reply ready;
    mercury_bytes panicked;
  } as;
};

/* A host's buffer on loan, to be filled. What was filled becomes mercury_bytes with
   the same owner and release. */
struct mercury_buffer {
  uint8_t *ptr;
  size_t capacity;
  void *owner;
  void (*release)(void *);
};

/* The answer to poll_buffer: a status, and with MERCURY_SINK_OK a buffer. */
struct mercury_lend {
  uint8_t status;
  mercury_buffer buffer;
};

/* See mercury_poll_reply. */
struct mercury_poll_lend {
  uint8_t tag;
  union {
    mercury_lend ready;
    mercury_bytes panicked;
  } as;
};

/* See mercury_poll_reply. The value is a MERCURY_SINK_* status. */
struct mercury_poll_uint8_t {
  uint8_t tag;
  union {
    uint8_t ready;
    mercury_bytes panicked;
  } as;
};

#ifdef __cplusplus
}
#endif

#endif
