//! What the examples share, so that each of them can be read as a story.
//!
//! | module | does |
//! | --- | --- |
//! | [`application`] | the application whose database is backed up: a process of its own |
//! | [`arguments`] | what was asked for on the command line |
//! | [`cluster`] | a PostgreSQL server of one's own |
//! | [`content`], [`dataset`] | what a database holds, and a database to try things on |
//! | [`ledger`] | what each operation cost, as a table |
//! | [`place`] | directories, and the engine that works in them |
//! | [`report`] | errors and the log, for people to read |
//! | [`watch`] | an operation's progress, on a terminal |

#![allow(dead_code, unreachable_pub, reason = "included by programs that each use a part")]

pub mod application;
pub mod arguments;
pub mod cluster;
pub mod content;
pub mod dataset;
pub mod ledger;
pub mod place;
pub mod report;
pub mod watch;
