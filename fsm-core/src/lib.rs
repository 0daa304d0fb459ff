//! Typed, durable state machines.
