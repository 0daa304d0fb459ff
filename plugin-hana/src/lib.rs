//! Mercury's reference plugin for SAP HANA.
//!
//! **Nothing works yet.** This crate is a front page: it exports nothing, it cannot be loaded as a
//! plugin, there is no `hdbbackint` program in it, and no part of it has been run against SAP
//! HANA.
//!
//! What it is going to do, as a workload `hana` written against `plugin-sdk`:
//!
//! - An *instance* is a HANA system; an *item* is one of its databases, the system database or a
//!   tenant.
//! - HANA asks for its backups itself: for each call it starts a program named `hdbbackint` and
//!   hands it pipes. That program will be small. It passes the open pipes on to the agent, which
//!   attaches the call to the operation that it belongs to, and reads them without another copy.
//! - Full, differential, incremental and log backups, and HANA's own catalog.
//! - HANA is told `#SAVED` only once the bytes are durable in the archive. The end of a pipe proves
//!   nothing: a writer that was killed looks the same. A recovery point is sealed after HANA's
//!   catalog has named the same backup.
//! - Log backups keep coming, whatever else goes on: HANA stops once its log volume is full. They
//!   get a lane of their own in the throttle.
//! - All pipes of one call are admitted together or not at all.
//! - Restore of the same database or into another one, up to a moment.

#![forbid(unsafe_code)]
