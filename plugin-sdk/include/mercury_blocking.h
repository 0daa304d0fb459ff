/* Plugins in C without tasks and wakers: a request is a function that may block.

   An instance's `start` is one line:

       static mercury_task start(const void *instance, mercury_call call) {
         return mercury_start_blocking(instance, call, serve);
       }

   and `serve` runs on a thread of its own, asks the host with mercury_ask and friends, which wait,
   and returns its reply. Whoever has threads of their own uses mercury_start instead, and says
   mercury_done(job, reply) when the work is done.

   A job that the host has asked to stop sees mercury_cancelled(job). When the host has abandoned it,
   every call, sink and source answers at once that it is revoked or closed. Requires C11 and POSIX
   threads. */
#ifndef MERCURY_BLOCKING_H
#define MERCURY_BLOCKING_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "mercury_plugin.h"

/* ---- bytes ---------------------------------------------------------------------------------- */

static inline void mercury_release_nothing(void *owner) { (void)owner; }

/* Bytes that live for ever, a string literal say. */
static inline mercury_bytes mercury_static(const char *text) {
  mercury_bytes bytes = {(const uint8_t *)text, strlen(text), NULL, mercury_release_nothing};
  return bytes;
}

/* Bytes that `free` frees. */
static inline mercury_bytes mercury_owned(void *ptr, size_t len) {
  mercury_bytes bytes = {(const uint8_t *)ptr, len, ptr, free};
  return bytes;
}

/* A copy; empty if there is no memory. */
static inline mercury_bytes mercury_copy(const void *ptr, size_t len) {
  void *copy = malloc(len ? len : 1);
  if (copy == NULL) return mercury_static("");
  if (len) memcpy(copy, ptr, len);
  return mercury_owned(copy, len);
}

static inline void mercury_release(mercury_bytes bytes) { bytes.release(bytes.owner); }

static inline mercury_str mercury_text(const char *text) {
  mercury_str str = {(const uint8_t *)text, strlen(text)};
  return str;
}

/* The first `len` bytes of a buffer that was filled: the same memory, not a copy. */
static inline mercury_bytes mercury_freeze(mercury_buffer buffer, size_t len) {
  mercury_bytes bytes = {buffer.ptr, len <= buffer.capacity ? len : buffer.capacity, buffer.owner,
                         buffer.release};
  return bytes;
}

/* ---- replies -------------------------------------------------------------------------------- */

static inline mercury_reply mercury_reply_of(uint8_t status, mercury_bytes body) {
  mercury_reply reply;
  memset(&reply, 0, sizeof reply);
  reply.status = status;
  reply.body = body;
  reply.object.tag = MERCURY_OBJECT_NONE;
  return reply;
}

static inline mercury_reply mercury_ok(mercury_bytes body) {
  return mercury_reply_of(MERCURY_OK, body);
}

static inline mercury_reply mercury_error(mercury_bytes body) {
  return mercury_reply_of(MERCURY_ERROR, body);
}

/* ---- waiting for the host ------------------------------------------------------------------- */

/* A waker that a thread sleeps on. It is counted, as a host may wake it late. */
typedef struct mercury_parker {
  mercury_waker head; /* first: the address of the waker is that of the parker */
  pthread_mutex_t lock;
  pthread_cond_t woken_now;
  bool woken;
  atomic_size_t references;
} mercury_parker;

static inline void mercury_parker_drop(const mercury_waker *waker) {
  mercury_parker *parker = (mercury_parker *)waker;
  if (atomic_fetch_sub(&parker->references, 1) == 1) {
    pthread_cond_destroy(&parker->woken_now);
    pthread_mutex_destroy(&parker->lock);
    free(parker);
  }
}

static inline const mercury_waker *mercury_parker_clone(const mercury_waker *waker) {
  atomic_fetch_add(&((mercury_parker *)waker)->references, 1);
  return waker;
}

static inline void mercury_parker_wake_by_ref(const mercury_waker *waker) {
  mercury_parker *parker = (mercury_parker *)waker;
  pthread_mutex_lock(&parker->lock);
  parker->woken = true;
  pthread_cond_signal(&parker->woken_now);
  pthread_mutex_unlock(&parker->lock);
}

static inline void mercury_parker_wake(const mercury_waker *waker) {
  mercury_parker_wake_by_ref(waker);
  mercury_parker_drop(waker);
}

/* Aborts when there is no memory for it: there is nobody to tell. */
static inline mercury_parker *mercury_parker_new(void) {
  mercury_parker *parker = (mercury_parker *)malloc(sizeof *parker);
  if (parker == NULL) abort();
  parker->head.clone = mercury_parker_clone;
  parker->head.wake = mercury_parker_wake;
  parker->head.wake_by_ref = mercury_parker_wake_by_ref;
  parker->head.drop = mercury_parker_drop;
  pthread_mutex_init(&parker->lock, NULL);
  pthread_cond_init(&parker->woken_now, NULL);
  parker->woken = false;
  atomic_init(&parker->references, 1);
  return parker;
}

static inline void mercury_park(mercury_parker *parker) {
  pthread_mutex_lock(&parker->lock);
  while (!parker->woken) pthread_cond_wait(&parker->woken_now, &parker->lock);
  parker->woken = false;
  pthread_mutex_unlock(&parker->lock);
}

/* Waits for a task of the host's, and drops it. */
static inline mercury_reply mercury_wait(mercury_task task) {
  mercury_parker *parker = mercury_parker_new();
  mercury_poll_reply polled = task.poll(task.data, &parker->head);
  while (polled.tag == MERCURY_POLL_PENDING) {
    mercury_park(parker);
    polled = task.poll(task.data, &parker->head);
  }
  task.drop(task.data);
  mercury_parker_drop(&parker->head);
  if (polled.tag == MERCURY_POLL_READY) return polled.as.ready;
  return mercury_error(polled.as.panicked);
}

/* ---- a request ------------------------------------------------------------------------------ */

/* A request under way. Two hold it: the host, by its task, and the work. */
typedef struct mercury_job {
  const void *instance;
  mercury_call call;
  void *user; /* the author's own */

  pthread_mutex_t lock;
  const mercury_waker *waker; /* of the host's last poll, or null */
  mercury_reply reply;
  bool is_done, is_taken;
  atomic_bool is_cancelled;
  atomic_size_t references;
  mercury_reply (*serve)(struct mercury_job *);
} mercury_job;

static inline void mercury_job_release(mercury_job *job) {
  if (atomic_fetch_sub(&job->references, 1) != 1) return;
  if (job->waker != NULL) job->waker->drop(job->waker);
  if (job->is_done && !job->is_taken) mercury_release(job->reply.body);
  mercury_release(job->call.request);
  job->call.host.drop(job->call.host.data);
  pthread_mutex_destroy(&job->lock);
  free(job);
}

static inline mercury_poll_reply mercury_job_poll(void *data, const mercury_waker *waker) {
  mercury_job *job = (mercury_job *)data;
  mercury_poll_reply polled;
  const mercury_waker *old = NULL;
  memset(&polled, 0, sizeof polled);
  pthread_mutex_lock(&job->lock);
  if (job->is_done) {
    polled.tag = MERCURY_POLL_READY;
    polled.as.ready =
        job->is_taken ? mercury_reply_of(MERCURY_FINISHED, mercury_static("")) : job->reply;
    job->is_taken = true;
  } else {
    polled.tag = MERCURY_POLL_PENDING;
    /* The same poller shows the same address, which was cloned before. */
    if (job->waker != waker) {
      old = job->waker;
      job->waker = waker->clone(waker);
    }
  }
  pthread_mutex_unlock(&job->lock);
  if (old != NULL) old->drop(old);
  return polled;
}

static inline void mercury_job_cancel(const void *data) {
  atomic_store(&((mercury_job *)data)->is_cancelled, true);
}

static inline void mercury_job_drop(void *data) {
  mercury_job_cancel(data);
  mercury_job_release((mercury_job *)data);
}

/* Whether the host has asked the work to stop. */
static inline bool mercury_cancelled(mercury_job *job) { return atomic_load(&job->is_cancelled); }

/* The request's document. */
static inline mercury_str mercury_request(const mercury_job *job) {
  mercury_str request = {job->call.request.ptr, job->call.request.len};
  return request;
}

/* Ends the work: once for each job, from any thread. The job is not touched after it. */
static inline void mercury_done(mercury_job *job, mercury_reply reply) {
  const mercury_waker *waker;
  pthread_mutex_lock(&job->lock);
  job->reply = reply;
  job->is_done = true;
  waker = job->waker;
  job->waker = NULL;
  pthread_mutex_unlock(&job->lock);
  if (waker != NULL) waker->wake(waker);
  mercury_job_release(job);
}

static inline mercury_task mercury_start_job(const void *instance, mercury_call call,
                                             mercury_reply (*serve)(mercury_job *),
                                             void (*begin)(mercury_job *)) {
  mercury_task task;
  mercury_job *job = (mercury_job *)calloc(1, sizeof *job);
  if (job == NULL) abort(); /* there is no memory to say so in */
  job->instance = instance;
  job->call = call;
  job->serve = serve;
  pthread_mutex_init(&job->lock, NULL);
  atomic_init(&job->is_cancelled, false);
  atomic_init(&job->references, 2);
  task.data = job;
  task.poll = mercury_job_poll;
  task.cancel = mercury_job_cancel;
  task.drop = mercury_job_drop;
  begin(job);
  return task;
}

/* Starts a request. `begin` is called here and now, must not block, and sees to it that
   mercury_done is called at some time. */
static inline mercury_task mercury_start(const void *instance, mercury_call call,
                                         void (*begin)(mercury_job *)) {
  return mercury_start_job(instance, call, NULL, begin);
}

static inline void *mercury_thread(void *data) {
  mercury_job *job = (mercury_job *)data;
  mercury_done(job, job->serve(job));
  return NULL;
}

static inline void mercury_begin_thread(mercury_job *job) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, mercury_thread, job) == 0) {
    pthread_detach(thread);
  } else {
    mercury_done(job, mercury_error(mercury_static(
                          "{\"schema\":1,\"body\":{\"class\":\"retryable\","
                          "\"code\":\"plugin.no_thread\",\"message\":\"no thread for the job\"}}")));
  }
}

/* As mercury_start, with the function that a thread runs. */
static inline mercury_task mercury_start_blocking(const void *instance, mercury_call call,
                                                  mercury_reply (*serve)(mercury_job *)) {
  return mercury_start_job(instance, call, serve, mercury_begin_thread);
}

/* ---- the host's services, waited for -------------------------------------------------------- */

/* Asks the host for an operation. */
static inline mercury_reply mercury_ask(mercury_job *job, const char *operation,
                                        mercury_bytes document) {
  mercury_host *host = &job->call.host;
  return mercury_wait(host->call(host->data, mercury_text(operation), document));
}

/* A buffer of at least `min_len` bytes, once one is free. */
static inline mercury_lend mercury_lend_wait(mercury_sink *sink, uint64_t min_len) {
  mercury_parker *parker = mercury_parker_new();
  mercury_lend lend;
  mercury_poll_lend polled = sink->poll_buffer(sink->data, min_len, &parker->head);
  while (polled.tag == MERCURY_POLL_PENDING) {
    mercury_park(parker);
    polled = sink->poll_buffer(sink->data, min_len, &parker->head);
  }
  mercury_parker_drop(&parker->head);
  if (polled.tag == MERCURY_POLL_READY) return polled.as.ready;
  mercury_release(polled.as.panicked);
  memset(&lend, 0, sizeof lend);
  lend.status = MERCURY_SINK_CLOSED;
  lend.buffer.release = mercury_release_nothing;
  return lend;
}

/* Sends bytes of one's own, once there is room for them. */
static inline uint8_t mercury_send_wait(mercury_sink *sink, mercury_bytes bytes) {
  mercury_parker *parker = mercury_parker_new();
  uint8_t status = MERCURY_SINK_CLOSED;
  mercury_poll_uint8_t polled = sink->poll_ready(sink->data, &parker->head);
  while (polled.tag == MERCURY_POLL_PENDING) {
    mercury_park(parker);
    polled = sink->poll_ready(sink->data, &parker->head);
  }
  mercury_parker_drop(&parker->head);
  if (polled.tag == MERCURY_POLL_READY) {
    status = polled.as.ready;
  } else {
    mercury_release(polled.as.panicked);
  }
  if (status != MERCURY_SINK_OK) {
    mercury_release(bytes);
    return status;
  }
  return sink->send(sink->data, bytes);
}

/* Ends the stream and waits for its receipt; the sink is dropped. */
static inline mercury_reply mercury_finish_wait(mercury_sink *sink) {
  mercury_reply reply = mercury_wait(sink->finish(sink->data));
  sink->drop(sink->data);
  return reply;
}

/* Reads from a position: fewer bytes only at the end. */
static inline mercury_reply mercury_read_wait(const mercury_source *source, uint64_t offset,
                                              uint64_t len) {
  return mercury_wait(source->read_at(source->data, offset, len));
}

#endif
