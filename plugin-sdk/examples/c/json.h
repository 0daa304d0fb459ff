/* As much of JSON as a small plugin needs: finding a value by its path, and writing text.

   Nothing here trusts its input: a document that is cut short, or is none, has no values. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A value in a document, as it is written there; null if there is none. */
typedef struct json {
  const char *ptr;
  size_t len;
} json;

static inline const char *json_blank(const char *at, const char *end) {
  while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
  return at;
}

/* The end of the value that begins at `at`, or null. Brackets are counted, texts are skipped. */
static inline const char *json_end(const char *at, const char *end) {
  int depth = 0;
  if (at == NULL) return NULL;
  for (; at < end; at++) {
    if (*at == '"') {
      for (at++; at < end && *at != '"'; at++) {
        if (*at == '\\') at++;
      }
      if (at >= end) return NULL;
      if (depth == 0) return at + 1;
    } else if (*at == '{' || *at == '[') {
      depth++;
    } else if (*at == '}' || *at == ']') {
      if (depth == 0) return at;
      if (--depth == 0) return at + 1;
    } else if (depth == 0 && *at == ',') {
      return at;
    }
  }
  return depth == 0 ? end : NULL;
}

/* Whether the document is one object, from its first bracket to its last. */
static inline bool json_is_whole(json document) {
  const char *end = document.ptr + document.len, *at;
  if (document.ptr == NULL) return false;
  at = json_blank(document.ptr, end);
  if (at >= end || *at != '{') return false;
  at = json_end(at, end);
  return at != NULL && json_blank(at, end) == end;
}

/* The member `name` of an object. */
static inline json json_member(json object, const char *name) {
  const json none = {NULL, 0};
  const char *end = object.ptr + object.len, *at;
  size_t name_len = strlen(name);
  if (object.ptr == NULL) return none;
  at = json_blank(object.ptr, end);
  if (at >= end || *at != '{') return none;
  at++;
  for (;;) {
    const char *key, *key_end, *value, *value_end;
    key = json_blank(at, end);
    if (key >= end || *key != '"') return none;
    key_end = json_end(key, end);
    if (key_end == NULL) return none;
    value = json_blank(key_end, end);
    if (value >= end || *value != ':') return none;
    value = json_blank(value + 1, end);
    value_end = json_end(value, end);
    if (value_end == NULL) return none;
    if ((size_t)(key_end - key) == name_len + 2 && memcmp(key + 1, name, name_len) == 0) {
      json found = {value, (size_t)(value_end - value)};
      return found;
    }
    at = json_blank(value_end, end);
    if (at >= end || *at != ',') return none;
    at++;
  }
}

/* Whether the value is this text. */
static inline bool json_is(json value, const char *text) {
  size_t len = strlen(text);
  return value.ptr != NULL && value.len == len + 2 && value.ptr[0] == '"' &&
         memcmp(value.ptr + 1, text, len) == 0;
}

/* A text value without its escapes, to be freed; null if it is no text. Of \u only ASCII is read,
   anything else becomes '?'. */
static inline char *json_text(json value) {
  char *text, *to;
  const char *at, *end;
  if (value.ptr == NULL || value.len < 2 || value.ptr[0] != '"') return NULL;
  text = to = (char *)malloc(value.len);
  if (text == NULL) return NULL;
  end = value.ptr + value.len - 1;
  for (at = value.ptr + 1; at < end; at++) {
    if (*at != '\\' || at + 1 >= end) {
      *to++ = *at;
      continue;
    }
    switch (*++at) {
    case 'n': *to++ = '\n'; break;
    case 't': *to++ = '\t'; break;
    case 'r': *to++ = '\r'; break;
    case 'b': *to++ = '\b'; break;
    case 'f': *to++ = '\f'; break;
    case 'u': {
      char digits[5] = {0};
      unsigned long code;
      if (end - at < 5) { at = end; break; }
      memcpy(digits, at + 1, 4);
      code = strtoul(digits, NULL, 16);
      *to++ = code < 0x80 ? (char)code : '?';
      at += 4;
      break;
    }
    default: *to++ = *at;
    }
  }
  *to = '\0';
  return text;
}

/* Text that grows. When there is no memory it is marked, and stays as it is. */
typedef struct text {
  char *ptr;
  size_t len, capacity;
  bool is_lost;
} text;

static inline void text_add(text *to, const char *ptr, size_t len) {
  if (to->is_lost) return;
  if (to->len + len > to->capacity) {
    size_t capacity = (to->len + len) * 2 + 64;
    char *grown = (char *)realloc(to->ptr, capacity);
    if (grown == NULL) {
      to->is_lost = true;
      return;
    }
    to->ptr = grown;
    to->capacity = capacity;
  }
  memcpy(to->ptr + to->len, ptr, len);
  to->len += len;
}

static inline void text_put(text *to, const char *words) { text_add(to, words, strlen(words)); }

static inline void text_json(text *to, json value) {
  if (value.ptr != NULL) text_add(to, value.ptr, value.len);
}

/* The bytes as a JSON text, with its quotes. */
static inline void text_quote(text *to, const char *ptr, size_t len) {
  size_t at;
  text_put(to, "\"");
  for (at = 0; at < len; at++) {
    unsigned char byte = (unsigned char)ptr[at];
    if (byte == '"' || byte == '\\') {
      text_put(to, "\\");
      text_add(to, ptr + at, 1);
    } else if (byte < 0x20) {
      char escape[8];
      snprintf(escape, sizeof escape, "\\u%04x", byte);
      text_put(to, escape);
    } else {
      text_add(to, ptr + at, 1);
    }
  }
  text_put(to, "\"");
}

#endif
