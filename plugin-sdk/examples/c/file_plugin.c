/* A plugin in C that backs up one file.

   The item is the file whose path the configuration gives, `c_file/local/file`. A backup sends its
   bytes in the host's buffers (state `send`) and makes a recovery point of them (`seal`). A restore
   writes them to a path beside, and renames it over the target (`fetch`). Every function may block:
   mercury_blocking.h gives each request a thread.

       cc -std=c11 -shared -fPIC -pthread -I plugin-sdk/include -o libfile_plugin.so file_plugin.c */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"
#include "mercury_blocking.h"

#define CHUNK (256u * 1024u)

/* ---- what is said --------------------------------------------------------------------------- */

static const char MANIFEST[] =
    "{\"schema\":1,\"sdk\":\"c\",\"workloads\":[{\"plugin\":\"plugin-c-file\",\"version\":\"1.0.0\","
    "\"workload\":\"c_file\",\"operations\":[\"discover\",{\"backup\":\"full\"},\"restore\"]}]}";

#define RETRY_WITH(more) \
  "\"retry\":{\"attempts\":3,\"first_ms\":1000,\"factor\":2.0,\"cap_ms\":60000" more "}"
#define RETRY RETRY_WITH("")
/* An attempt that takes more than a day is stopped. */
#define RETRY_LIMITED RETRY_WITH(",\"attempt_timeout_ms\":86400000")

static const char MACHINES[] =
    "{\"schema\":1,\"body\":["
    "{\"machine\":\"backup\",\"doc\":\"Backs up the file.\",\"version\":1,\"initial\":\"send\","
    "\"states\":["
    "{\"name\":\"send\",\"doc\":\"Send the file's bytes.\",\"next\":[\"seal\"]," RETRY_LIMITED "},"
    "{\"name\":\"seal\",\"doc\":\"Make a recovery point of them.\",\"next\":[\"sealed\"]," RETRY
    ",\"cancel\":\"defer\"},"
    "{\"name\":\"sealed\",\"doc\":\"The recovery point exists.\",\"next\":[]," RETRY
    ",\"ending\":\"completed\"}]},"
    "{\"machine\":\"restore\",\"doc\":\"Restores the file.\",\"version\":1,\"initial\":\"fetch\","
    "\"states\":["
    "{\"name\":\"fetch\",\"doc\":\"Write the bytes beside the target, then rename.\","
    "\"next\":[\"restored\"]," RETRY_LIMITED "},"
    "{\"name\":\"restored\",\"doc\":\"The file is whole.\",\"next\":[]," RETRY
    ",\"ending\":\"completed\"}]}]}";

/* An instance: where the file is. */
typedef struct instance {
  char *path;
} instance;

static mercury_reply reply_text(text *body) {
  if (body->is_lost) {
    free(body->ptr);
    return mercury_error(mercury_static(
        "{\"schema\":1,\"body\":{\"class\":\"retryable\",\"code\":\"c_file.memory\","
        "\"message\":\"there is no memory for the reply\"}}"));
  }
  return mercury_ok(mercury_owned(body->ptr, body->len));
}

static void put_fault(text *to, const char *class, const char *code, const char *message) {
  text_put(to, "{\"class\":\"");
  text_put(to, class);
  text_put(to, "\",\"code\":\"");
  text_put(to, code);
  text_put(to, "\",\"message\":");
  text_quote(to, message, strlen(message));
  text_put(to, "}");
}

/* Refuses a request. */
static mercury_reply refuse(const char *class, const char *code, const char *message) {
  text body = {0};
  mercury_reply reply;
  text_put(&body, "{\"schema\":1,\"body\":");
  put_fault(&body, class, code, message);
  text_put(&body, "}");
  reply = reply_text(&body);
  reply.status = MERCURY_ERROR;
  return reply;
}

/* Ends a step with a fault. */
static mercury_reply step_fault(const char *class, const char *code, const char *message) {
  text body = {0};
  text_put(&body, "{\"schema\":1,\"body\":{\"verdict\":{\"fault\":");
  put_fault(&body, class, code, message);
  text_put(&body, "}}}");
  return reply_text(&body);
}

static mercury_reply step_errno(const char *code, const char *path) {
  char message[512];
  const char *class = errno == ENOENT || errno == EACCES || errno == ENOSPC ? "user" : "retryable";
  snprintf(message, sizeof message, "%s: %s", path, strerror(errno));
  return step_fault(class, code, message);
}

/* Ends a step with the fault that the host's refusal holds. */
static mercury_reply step_refused(mercury_reply refused) {
  json document = {(const char *)refused.body.ptr, refused.body.len};
  json fault = json_member(document, "body");
  text body = {0};
  mercury_reply reply;
  if (refused.status == MERCURY_REVOKED) {
    mercury_release(refused.body);
    return step_fault("interrupted", "interrupted", "the host no longer serves this step");
  }
  if (fault.ptr == NULL) {
    mercury_release(refused.body);
    return step_fault("bug", "c_file.host", "the host refused without a reason");
  }
  text_put(&body, "{\"schema\":1,\"body\":{\"verdict\":{\"fault\":");
  text_json(&body, fault);
  text_put(&body, "}}}");
  reply = reply_text(&body);
  mercury_release(refused.body);
  return reply;
}

/* Ends a step by moving to `state` with `data`, a JSON document, which is freed. */
static mercury_reply step_go(const char *state, text *data) {
  text body = {0};
  text_put(&body, "{\"schema\":1,\"body\":{\"verdict\":{\"go\":{\"state\":\"");
  text_put(&body, state);
  text_put(&body, "\",\"data\":");
  text_quote(&body, data->ptr, data->len);
  text_put(&body, "}}}}");
  body.is_lost = body.is_lost || data->is_lost;
  free(data->ptr);
  return reply_text(&body);
}

/* A question to the host, made of what stands between `{"schema":1,"body":` and `}`. */
static mercury_reply ask(mercury_job *job, const char *operation, text *body) {
  text document = {0};
  mercury_bytes bytes;
  text_put(&document, "{\"schema\":1,\"body\":");
  text_add(&document, body->ptr, body->len);
  text_put(&document, "}");
  free(body->ptr);
  if (document.is_lost) {
    free(document.ptr);
    bytes = mercury_static("");
  } else {
    bytes = mercury_owned(document.ptr, document.len);
  }
  return mercury_ask(job, operation, bytes);
}

static json body_of(const mercury_reply *reply) {
  json document = {(const char *)reply->body.ptr, reply->body.len};
  return json_member(document, "body");
}

/* ---- the backup ----------------------------------------------------------------------------- */

/* Sends the file; null, or the reply with which the step ends. The sink is gone either way. */
static bool send_file(mercury_job *job, mercury_sink *sink, const char *path, mercury_reply *end) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    *end = step_errno("c_file.open", path);
    sink->drop(sink->data);
    return false;
  }
  for (;;) {
    mercury_lend lend;
    ssize_t got;
    uint8_t status;
    if (mercury_cancelled(job)) {
      *end = step_fault("cancelled", "cancelled", "the step was asked to stop");
      break;
    }
    lend = mercury_lend_wait(sink, CHUNK);
    if (lend.status != MERCURY_SINK_OK) {
      /* Why it was closed is in the answer to finish. */
      *end = step_refused(mercury_finish_wait(sink));
      close(file);
      return false;
    }
    do {
      got = read(file, lend.buffer.ptr, lend.buffer.capacity);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
      lend.buffer.release(lend.buffer.owner);
      if (got == 0) {
        close(file);
        return true;
      }
      *end = step_errno("c_file.read", path);
      break;
    }
    status = sink->send(sink->data, mercury_freeze(lend.buffer, (size_t)got));
    if (status != MERCURY_SINK_OK) {
      *end = step_refused(mercury_finish_wait(sink));
      close(file);
      return false;
    }
  }
  close(file);
  sink->drop(sink->data);
  return false;
}

static mercury_reply seal_with(json taken_at, json receipts) {
  text data = {0};
  text_put(&data, "{\"taken_at\":");
  text_json(&data, taken_at);
  text_put(&data, ",\"receipts\":");
  text_json(&data, receipts);
  text_put(&data, "}");
  return step_go("seal", &data);
}

static mercury_reply step_send(mercury_job *job) {
  const instance *self = (const instance *)job->instance;
  mercury_reply begun, opened, finished, end;
  mercury_sink sink;
  json take, receipts;
  text body = {0};

  text_put(&body, "{\"name\":\"file\"}");
  begun = ask(job, "take.begin", &body);
  if (begun.status != MERCURY_OK) return step_refused(begun);
  take = json_member(body_of(&begun), "take");
  receipts = json_member(body_of(&begun), "finished");
  if (receipts.ptr != NULL && receipts.ptr[0] == '[') {
    /* An earlier attempt finished the take, and was interrupted before its move was durable. */
    end = seal_with(json_member(body_of(&begun), "begun_at"), receipts);
    mercury_release(begun.body);
    return end;
  }

  memset(&body, 0, sizeof body);
  text_put(&body, "{\"take\":");
  text_json(&body, take);
  text_put(&body, ",\"stream\":\"data\"}");
  opened = ask(job, "stream.open", &body);
  if (opened.status != MERCURY_OK || opened.object.tag != MERCURY_OBJECT_SINK) {
    mercury_release(begun.body);
    return step_refused(opened);
  }
  sink = opened.object.as.sink;
  mercury_release(opened.body);
  if (!send_file(job, &sink, self->path, &end)) {
    mercury_release(begun.body);
    return end;
  }
  finished = mercury_finish_wait(&sink);
  if (finished.status != MERCURY_OK) {
    mercury_release(begun.body);
    return step_refused(finished);
  }
  mercury_release(finished.body);

  memset(&body, 0, sizeof body);
  text_put(&body, "{\"take\":");
  text_json(&body, take);
  text_put(&body, "}");
  finished = ask(job, "take.finish", &body);
  if (finished.status != MERCURY_OK) {
    mercury_release(begun.body);
    return step_refused(finished);
  }
  end = seal_with(json_member(body_of(&begun), "begun_at"), body_of(&finished));
  mercury_release(finished.body);
  mercury_release(begun.body);
  return end;
}

static mercury_reply step_seal(mercury_job *job, json data) {
  mercury_reply sealed, end;
  text body = {0}, point = {0};
  text_put(&body, "{\"key\":\"point\",\"kind\":\"full\",\"base\":[],\"notes\":{},\"taken_at\":");
  text_json(&body, json_member(data, "taken_at"));
  text_put(&body, ",\"receipts\":");
  text_json(&body, json_member(data, "receipts"));
  text_put(&body, "}");
  sealed = ask(job, "seal", &body);
  if (sealed.status != MERCURY_OK) return step_refused(sealed);
  text_put(&point, "{\"point\":");
  text_json(&point, body_of(&sealed));
  text_put(&point, "}");
  end = step_go("sealed", &point);
  mercury_release(sealed.body);
  return end;
}

/* ---- the restore ---------------------------------------------------------------------------- */

static bool write_all(int file, const uint8_t *bytes, size_t len) {
  while (len > 0) {
    ssize_t wrote = write(file, bytes, len);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return false;
    bytes += wrote;
    len -= (size_t)wrote;
  }
  return true;
}

/* Writes the source to `path`, synced; null, or the reply with which the step ends. */
static bool fetch_to(mercury_job *job, const mercury_source *source, const char *path,
                     mercury_reply *end) {
  uint64_t at = 0;
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) {
    *end = step_errno("c_file.create", path);
    return false;
  }
  while (at < source->len) {
    mercury_reply read;
    bool is_written;
    size_t len;
    if (mercury_cancelled(job)) {
      *end = step_fault("cancelled", "cancelled", "the step was asked to stop");
      close(file);
      return false;
    }
    read = mercury_read_wait(source, at, CHUNK);
    if (read.status != MERCURY_OK) {
      *end = step_refused(read);
      close(file);
      return false;
    }
    len = read.body.len;
    is_written = write_all(file, read.body.ptr, len);
    mercury_release(read.body);
    if (!is_written || len == 0) {
      if (is_written) errno = EIO; /* a source that ends before its length */
      *end = step_errno("c_file.write", path);
      close(file);
      return false;
    }
    at += len;
  }
  if (fsync(file) != 0 || close(file) != 0) {
    *end = step_errno("c_file.sync", path);
    return false;
  }
  return true;
}

static mercury_reply step_fetch(mercury_job *job, json data) {
  char *target = json_text(json_member(data, "target"));
  char beside[1024];
  mercury_reply opened, end;
  mercury_source source;
  text body = {0};
  bool is_fetched;
  if (target == NULL || strlen(target) + 16 > sizeof beside) {
    free(target);
    return step_fault("user", "c_file.target", "the target is no path");
  }
  snprintf(beside, sizeof beside, "%s.restoring", target);
  text_put(&body, "{\"stream\":\"data\",\"point\":");
  text_json(&body, json_member(data, "point"));
  text_put(&body, "}");
  opened = ask(job, "source.open", &body);
  if (opened.status != MERCURY_OK || opened.object.tag != MERCURY_OBJECT_SOURCE) {
    free(target);
    return step_refused(opened);
  }
  source = opened.object.as.source;
  mercury_release(opened.body);
  is_fetched = fetch_to(job, &source, beside, &end);
  source.drop(source.data);
  if (!is_fetched) {
    unlink(beside);
  } else if (rename(beside, target) != 0) {
    end = step_errno("c_file.rename", target);
  } else {
    text nothing = {0};
    text_put(&nothing, "null");
    end = step_go("restored", &nothing);
  }
  free(target);
  return end;
}

/* ---- requests ------------------------------------------------------------------------------- */

static bool is_ours(json item) { return json_is(item, "c_file/local/file"); }

static mercury_reply serve_step(mercury_job *job, json call) {
  json machine = json_member(call, "machine");
  bool is_backup = json_is(machine, "backup"), is_restore = json_is(machine, "restore");
  json state = json_member(call, "state"), kind = json_member(call, "kind");
  json exhausted = json_member(kind, "exhausted");
  char *decoded;
  json data;
  mercury_reply end;
  if (!(is_backup && (json_is(state, "send") || json_is(state, "seal"))) &&
      !(is_restore && json_is(state, "fetch"))) {
    return refuse("permanent", "machine.unknown", "there is no such machine or state here");
  }
  if (json_is(kind, "interrupted")) {
    return mercury_ok(mercury_static("{\"schema\":1,\"body\":{\"verdict\":\"again\"}}"));
  }
  if (json_is(kind, "cancel")) {
    return step_fault("cancelled", "cancelled", "the step was asked to stop");
  }
  if (exhausted.ptr != NULL) {
    text body = {0};
    text_put(&body, "{\"schema\":1,\"body\":{\"verdict\":{\"fault\":");
    text_json(&body, exhausted);
    text_put(&body, "}}}");
    return reply_text(&body);
  }
  if (!json_is(kind, "run")) return refuse("permanent", "c_file.kind", "no such kind of step");
  if (json_is(state, "send")) return step_send(job);
  decoded = json_text(json_member(call, "data"));
  data.ptr = decoded;
  data.len = decoded == NULL ? 0 : strlen(decoded);
  end = is_backup ? step_seal(job, data) : step_fetch(job, data);
  free(decoded);
  return end;
}

static mercury_reply serve_restore(const instance *self, json restore) {
  json chain = json_member(restore, "chain"), target = json_member(restore, "target"), point;
  char *path = json_text(target);
  struct stat found;
  text data = {0}, body = {0};
  /* This plugin makes full points only, so a chain is one point. */
  point.ptr = chain.ptr == NULL ? NULL : chain.ptr + 1;
  point.len = chain.ptr == NULL || chain.len < 2 ? 0 : chain.len - 2;
  point = json_member(point, "id");
  if (point.ptr == NULL) {
    free(path);
    return refuse("chain", "c_file.chain", "there is no point to restore");
  }
  if (path == NULL) path = strdup(self->path);
  if (path == NULL) return refuse("retryable", "c_file.memory", "there is no memory");
  if (stat(path, &found) == 0 && !json_is(json_member(restore, "overwrite"), "replace")) {
    free(path);
    return refuse("user", "c_file.exists", "the target is already there");
  }
  text_put(&data, "{\"point\":");
  text_json(&data, point);
  text_put(&data, ",\"target\":");
  text_quote(&data, path, strlen(path));
  text_put(&data, "}");
  free(path);
  text_put(&body, "{\"schema\":1,\"body\":{\"machine\":\"restore\",\"claims\":[],\"input\":");
  text_quote(&body, data.ptr, data.len);
  text_put(&body, "}}");
  body.is_lost = body.is_lost || data.is_lost;
  free(data.ptr);
  return reply_text(&body);
}

static mercury_reply serve(mercury_job *job) {
  mercury_str bytes = mercury_request(job);
  json document = {(const char *)bytes.ptr, bytes.len};
  json schema = json_member(document, "schema"), body = json_member(document, "body");
  json name = json_member(body, "request"), item = json_member(body, "item");
  json workload = json_member(body, "workload");
  char message[128];
  if (!json_is_whole(document)) {
    return refuse("bug", "message.decode", "the request cannot be read");
  }
  if (schema.len != 1 || schema.ptr[0] != '1') {
    return refuse("bug", "message.schema", "this plugin speaks message schema 1");
  }
  if (item.ptr == NULL) item = json_member(json_member(body, "restore"), "item");
  if ((workload.ptr != NULL && !json_is(workload, "c_file")) || (item.ptr != NULL && !is_ours(item))) {
    return refuse("permanent", "workload.unknown", "there is no such workload or item here");
  }
  if (json_is(name, "step")) return serve_step(job, json_member(body, "call"));
  if (json_is(name, "discover")) {
    return mercury_ok(
        mercury_static("{\"schema\":1,\"body\":[{\"id\":\"c_file/local/file\"}]}"));
  }
  if (json_is(name, "decide")) {
    return mercury_ok(mercury_static("{\"schema\":1,\"body\":{\"run\":{\"machine\":\"backup\","
                                     "\"input\":\"{}\",\"claims\":[]}}}"));
  }
  if (json_is(name, "plan")) {
    /* Full points only: the chain is the target. */
    text chain = {0};
    text_put(&chain, "{\"schema\":1,\"body\":[");
    text_json(&chain, json_member(body, "target"));
    text_put(&chain, "]}");
    return reply_text(&chain);
  }
  if (json_is(name, "restore")) {
    return serve_restore((const instance *)job->instance, json_member(body, "restore"));
  }
  if (json_is(name, "machines")) return mercury_ok(mercury_static(MACHINES));
  if (name.ptr == NULL) return refuse("bug", "message.decode", "the request cannot be read");
  snprintf(message, sizeof message, "this plugin knows no request %.*s",
           (int)(name.len < 64 ? name.len : 64), name.ptr);
  return refuse("permanent", "request.unknown", message);
}

/* ---- the table ------------------------------------------------------------------------------ */

static mercury_outcome_bytes manifest(void) {
  mercury_outcome_bytes outcome;
  memset(&outcome, 0, sizeof outcome);
  outcome.tag = MERCURY_OUTCOME_OK;
  outcome.as.ok = mercury_static(MANIFEST);
  return outcome;
}

static void drop(const void *data) {
  instance *self = (instance *)data;
  free(self->path);
  free(self);
}

static void say(const mercury_c_host *host, const char *message) {
  mercury_log log;
  memset(&log, 0, sizeof log);
  if (!host->log_enabled(host->data, 3, mercury_text("c_file"))) return;
  log.kind = MERCURY_LOG_EVENT;
  log.level = 3;
  log.target = mercury_text("c_file");
  log.message = mercury_text(message);
  host->log(host->data, log);
}

static mercury_outcome_instance init(const mercury_c_host *host, mercury_bytes config) {
  mercury_outcome_instance outcome;
  json document = {(const char *)config.ptr, config.len};
  json own = json_member(json_member(document, "body"), "c_file");
  char *path = json_text(json_member(own, "path"));
  instance *self = (instance *)malloc(sizeof *self);
  mercury_release(config);
  memset(&outcome, 0, sizeof outcome);
  if (path == NULL || self == NULL) {
    free(path);
    free(self);
    outcome.tag = MERCURY_OUTCOME_ERROR;
    outcome.as.error = mercury_static(
        "{\"schema\":1,\"body\":{\"class\":\"user\",\"code\":\"config.invalid\","
        "\"message\":\"the configuration has no `path`\"}}");
    return outcome;
  }
  self->path = path;
  say(host, "a plugin in C is ready");
  outcome.tag = MERCURY_OUTCOME_OK;
  outcome.as.ok.data = self;
  outcome.as.ok.drop = drop;
  return outcome;
}

static mercury_task start(const void *self, mercury_call call) {
  return mercury_start_blocking(self, call, serve);
}

const mercury_c_plugin MERCURY_EXPORT = {
    .magic = MERCURY_MAGIC,
    .abi_major = MERCURY_ABI_MAJOR,
    .abi_minor = MERCURY_ABI_MINOR,
    .struct_size = sizeof(mercury_c_plugin),
    .manifest = manifest,
    .init = init,
    .start = start,
};
