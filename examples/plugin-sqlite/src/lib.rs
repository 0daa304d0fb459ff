//! A sample plugin: backs up and restores live SQLite databases.
