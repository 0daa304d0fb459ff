//! Mercury's reference plugin for Microsoft SQL Server.
