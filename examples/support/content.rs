//! What a database holds, table by table, whatever its pages look like.
//!
//! Two databases with equal hashes hold the same schema and the same rows. Uses
//! SQLite itself, so that it judges a restored file with foreign eyes.

#![allow(dead_code, unreachable_pub, reason = "included by programs that each use a part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Result};

/// The hash of every table's rows, as hexadecimal, by table name.
///
/// Rows are taken by rowid, or by primary key in a table without one. The entry
/// `sqlite_schema` stands for the schema itself. Reads in one transaction, so
/// that a database may be written to meanwhile.
///
/// # Errors
///
/// Those of opening the database and reading all of it.
pub fn table_hashes(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut connection = open_to_read(path)?;
    let moment = connection.transaction()?;
    let mut hashes = BTreeMap::new();
    let schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name";
    hashes.insert("sqlite_schema".to_owned(), hash_rows(&moment, schema)?);
    let mut tables = moment.prepare(
        "SELECT name, wr FROM pragma_table_list
         WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let mut rows = tables.query([])?;
    while let Some(row) = rows.next()? {
        let (name, is_without_rowid): (String, bool) = (row.get(0)?, row.get(1)?);
        let order =
            if is_without_rowid { primary_key(&moment, &name)? } else { "rowid".to_owned() };
        let sql = format!("SELECT * FROM {} ORDER BY {order}", quote(&name));
        hashes.insert(name, hash_rows(&moment, &sql)?);
    }
    Ok(hashes)
}

/// What `PRAGMA integrity_check` says: `ok`, or the first thing that is wrong.
///
/// # Errors
///
/// Those of opening the database and reading all of it.
pub fn check_integrity(path: &Path) -> Result<String> {
    open_to_read(path)?.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
}

/// Opens somebody's database: nothing is written to it, not even what its log holds already.
fn open_to_read(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

fn primary_key(connection: &Connection, table: &str) -> Result<String> {
    let mut columns =
        connection.prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?;
    let names = columns.query_map([table], |row| Ok(quote(&row.get::<_, String>(0)?)))?;
    Ok(names.collect::<Result<Vec<_>>>()?.join(", "))
}

fn hash_rows(connection: &Connection, sql: &str) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut encoded = Vec::new();
    while let Some(row) = rows.next()? {
        encoded.clear();
        for column in 0..columns {
            encode(row.get_ref(column)?, &mut encoded);
        }
        hasher.update(&encoded);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// A type, a length and the bytes, so that no two rows look the same.
fn encode(value: ValueRef<'_>, out: &mut Vec<u8>) {
    let mut put = |kind: u8, bytes: &[u8]| {
        out.push(kind);
        out.extend((bytes.len() as u64).to_le_bytes());
        out.extend(bytes);
    };
    match value {
        ValueRef::Null => put(0, &[]),
        ValueRef::Integer(number) => put(1, &number.to_le_bytes()),
        ValueRef::Real(number) => put(2, &number.to_bits().to_le_bytes()),
        ValueRef::Text(text) => put(3, text),
        ValueRef::Blob(blob) => put(4, blob),
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
