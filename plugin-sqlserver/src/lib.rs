//! Mercury's reference plugin for Microsoft SQL Server.
//!
//! **Nothing works yet.** This crate is a front page: it exports nothing, it cannot be loaded as a
//! plugin, and no part of it has been run against SQL Server.
//!
//! What it is going to do, as a workload `sqlserver` written against `plugin-sdk`:
//!
//! - An *instance* is a running SQL Server; an *item* is one of its databases.
//! - Full, differential and log backups that SQL Server itself makes, streamed into the archive
//!   over several stripes at once, with SQL Server's own checksums asked for.
//! - SQL Server is told that a backup is saved only once the bytes are durable in the archive: it
//!   truncates the log of a database whose log backup it believes.
//! - A recovery point is sealed after it was compared with what SQL Server recorded of the backup
//!   in `msdb`. After a crash a finished backup is adopted from there instead of being made again.
//! - A log backup that needs a full one first ends so, and says it.
//! - Restore over the original or beside it, up to a moment. The chain is planned by log sequence
//!   numbers and recovery forks, and refused for a gap before the target is touched.
//! - One full or differential backup and one log backup of a database at a time; a restore
//!   excludes both. These rules are declared to the throttle, not built into the engine.

#![forbid(unsafe_code)]
