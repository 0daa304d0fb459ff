//! A shop's database of any size: real rows, the same ones every time.
//!
//! New rows go to the ends of tables and indexes, as in most applications, so
//! that a day's work touches few pages. [`create_scattered`] is the opposite: a
//! unique index over random keys, which every insert hits at random.

#![allow(dead_code, unreachable_pub, reason = "included by programs that each use a part")]

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Result, Transaction, params};

/// Accounts of the ledger, each opened with [`OPENING_BALANCE`].
pub const ACCOUNTS: i64 = 500;
/// Transfers move it about; the sum over all accounts never changes.
pub const OPENING_BALANCE: i64 = 1_000;

const SCHEMA: &str = "
    CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL,
        city TEXT NOT NULL, joined_at INTEGER NOT NULL);
    CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers,
        placed_at INTEGER NOT NULL, status TEXT NOT NULL, total_cents INTEGER NOT NULL);
    CREATE INDEX orders_by_time ON orders (placed_at);
    CREATE TABLE order_lines (id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL REFERENCES orders,
        sku TEXT NOT NULL, quantity INTEGER NOT NULL, price_cents INTEGER NOT NULL);
    CREATE INDEX order_lines_by_order ON order_lines (order_id);
    CREATE TABLE events (id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL, at INTEGER NOT NULL,
        kind TEXT NOT NULL, payload TEXT NOT NULL);
    CREATE INDEX events_by_time ON events (at);
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
    CREATE TABLE transfers (id INTEGER PRIMARY KEY, payer INTEGER NOT NULL, payee INTEGER NOT NULL,
        amount INTEGER NOT NULL, note TEXT NOT NULL);
    CREATE TABLE progress (id INTEGER PRIMARY KEY CHECK (id = 1), transfers INTEGER NOT NULL);
    INSERT INTO progress VALUES (1, 0);";

const BATCH_ORDERS: i64 = 2_000;
const DOCUMENTS_AT_ONCE: i64 = 4_000;
const ORDERS_A_CUSTOMER: i64 = 8;
const FIRST_ORDER_AT: i64 = 1_700_000_000;

/// Creates a shop at `path`, of about `target_bytes`, in WAL mode with an empty log.
///
/// `progress` is told the bytes so far and `target_bytes`, a few times a second.
///
/// # Errors
///
/// Those of SQLite; a file at `path` is one.
pub fn create(path: &Path, target_bytes: u64, mut progress: impl FnMut(u64, u64)) -> Result<()> {
    let mut connection = open_new(path, SCHEMA)?;
    let transaction = connection.transaction()?;
    for id in 1..=ACCOUNTS {
        transaction.execute("INSERT INTO accounts VALUES (?1, ?2)", [id, OPENING_BALANCE])?;
    }
    transaction.commit()?;
    grow(&mut connection, target_bytes, &mut progress)?;
    settle(connection)
}

/// Adds new orders, lines and events until the file has grown by `fraction` (`0.01` is 1 %).
///
/// # Errors
///
/// Those of SQLite.
pub fn append(path: &Path, fraction: f64) -> Result<()> {
    let mut connection = open(path)?;
    let bytes = size(&connection)?;
    grow(&mut connection, bytes + scaled(bytes, fraction), &mut |_, _| {})?;
    settle(connection)
}

/// Rewrites the newest `fraction` of orders and events in place, to the same size.
///
/// # Errors
///
/// Those of SQLite.
pub fn change_newest(path: &Path, fraction: f64) -> Result<()> {
    let mut connection = open(path)?;
    let transaction = connection.transaction()?;
    for (table, assignment) in [
        ("orders", "status = CASE status WHEN 'open' THEN 'paid' ELSE 'open' END"),
        ("events", "payload = replace(replace(payload, 'e', 'E'), 'a', 'e')"),
    ] {
        let newest = last_id(&transaction, table)?;
        let first = newest - scaled(newest.unsigned_abs(), fraction).cast_signed();
        transaction.execute(&format!("UPDATE {table} SET {assignment} WHERE id > ?1"), [first])?;
    }
    transaction.commit()?;
    settle(connection)
}

/// How a table of documents with random keys is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Scattered {
    /// The rows lie in the order in which they came; a unique index over the random keys is
    /// hit at random.
    Index,
    /// The rows themselves lie in the order of the random keys.
    Rows,
}

/// Creates a database of about `target_bytes` whose every insert goes to a random place.
///
/// # Errors
///
/// Those of SQLite; a file at `path` is one.
pub fn create_scattered(
    path: &Path,
    target_bytes: u64,
    progress: impl FnMut(u64, u64),
) -> Result<()> {
    create_scattered_as(path, Scattered::Rows, target_bytes, progress)
}

/// Creates a database of about `target_bytes` with random keys, laid out as `layout` says.
///
/// # Errors
///
/// Those of SQLite; a file at `path` is one.
pub fn create_scattered_as(
    path: &Path,
    layout: Scattered,
    target_bytes: u64,
    mut progress: impl FnMut(u64, u64),
) -> Result<()> {
    let mut connection = open_new(
        path,
        match layout {
            Scattered::Index => {
                "CREATE TABLE documents (number INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE,
                     title TEXT NOT NULL, body TEXT NOT NULL)"
            }
            Scattered::Rows => {
                "CREATE TABLE documents (number INTEGER NOT NULL, uuid TEXT PRIMARY KEY,
                     title TEXT NOT NULL, body TEXT NOT NULL) WITHOUT ROWID"
            }
        },
    )?;
    // The whole tree is hit at random, so the cache holds the whole tree.
    connection.pragma_update(None, "cache_size", -512_000)?;
    let mut documents = 0;
    while size(&connection)? < target_bytes {
        add_documents(&mut connection, documents, DOCUMENTS_AT_ONCE)?;
        documents += DOCUMENTS_AT_ONCE;
        progress(size(&connection)?, target_bytes);
    }
    settle(connection)
}

/// Adds `fraction` as many documents again to a database with random keys.
///
/// # Errors
///
/// Those of SQLite.
pub fn append_scattered(path: &Path, fraction: f64) -> Result<()> {
    let mut connection = open(path)?;
    let newest = newest_document(&connection)?;
    let count = scaled(newest.unsigned_abs(), fraction).cast_signed();
    add_documents(&mut connection, newest, count)?;
    settle(connection)
}

/// Rewrites the newest `fraction` of the documents in place, to the same size.
///
/// # Errors
///
/// Those of SQLite.
pub fn change_newest_scattered(path: &Path, fraction: f64) -> Result<()> {
    let connection = open(path)?;
    let newest = newest_document(&connection)?;
    let first = newest - scaled(newest.unsigned_abs(), fraction).cast_signed();
    let change = "UPDATE documents SET body = replace(replace(body, 'e', 'E'), 'a', 'e')
        WHERE number > ?1";
    connection.execute(change, [first])?;
    settle(connection)
}

fn add_documents(connection: &mut Connection, newest: i64, count: i64) -> Result<()> {
    let mut random = Random::new(0x5ca7_7e7e ^ newest.unsigned_abs());
    let transaction = connection.transaction()?;
    let mut insert = transaction
        .prepare("INSERT INTO documents (number, uuid, title, body) VALUES (?1, ?2, ?3, ?4)")?;
    for number in newest + 1..=newest + count {
        insert.execute(params![number, random.uuid(), random.words(5), random.payload(700)])?;
    }
    drop(insert);
    transaction.commit()
}

fn newest_document(connection: &Connection) -> Result<i64> {
    connection.query_row("SELECT ifnull(max(number), 0) FROM documents", [], |row| row.get(0))
}

/// Commits small transactions until `stop` says so, and returns how many.
///
/// Each moves money between two accounts, records the transfer and counts it in
/// `progress`, in one transaction. So at every committed moment the balances sum
/// up to `ACCOUNTS * OPENING_BALANCE`, and `progress.transfers` is both the
/// number of transfers and the highest id. See [`check_moment`].
///
/// # Errors
///
/// Those of SQLite; it waits up to a minute for locks.
pub fn write_until(path: &Path, stop: impl Fn() -> bool) -> Result<u64> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    let mut random = Random::new(last_id(&connection, "transfers")?.unsigned_abs());
    let mut commits = 0;
    while !stop() {
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transfer(&transaction, &mut random)?;
        transaction.commit()?;
        commits += 1;
    }
    Ok(commits)
}

/// Checks what [`write_until`] keeps true at every committed moment; returns the moment.
///
/// `Ok(Err(..))` says in words what does not hold.
///
/// # Errors
///
/// Those of SQLite.
pub fn check_moment(path: &Path) -> Result<std::result::Result<u64, String>> {
    let connection = Connection::open(path)?;
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let moment = number("SELECT transfers FROM progress")?;
    let facts = [
        (
            "sum of balances",
            number("SELECT sum(balance) FROM accounts")?,
            ACCOUNTS * OPENING_BALANCE,
        ),
        ("number of transfers", number("SELECT count(*) FROM transfers")?, moment),
        ("highest transfer", number("SELECT ifnull(max(id), 0) FROM transfers")?, moment),
    ];
    for (what, found, expected) in facts {
        if found != expected {
            return Ok(Err(format!("{what} is {found} instead of {expected}")));
        }
    }
    Ok(Ok(moment.unsigned_abs()))
}

fn transfer(transaction: &Transaction<'_>, random: &mut Random) -> Result<()> {
    let (payer, payee) = (random.below(ACCOUNTS) + 1, random.below(ACCOUNTS) + 1);
    let amount = random.below(100);
    let pay = "UPDATE accounts SET balance = balance + ?2 WHERE id = ?1";
    transaction.execute(pay, [payer, -amount])?;
    transaction.execute(pay, [payee, amount])?;
    transaction.execute("UPDATE progress SET transfers = transfers + 1", [])?;
    transaction.execute(
        "INSERT INTO transfers SELECT transfers, ?1, ?2, ?3, ?4 FROM progress",
        params![payer, payee, amount, random.words(6)],
    )?;
    Ok(())
}

fn open_new(path: &Path, schema: &str) -> Result<Connection> {
    let connection = open(path)?;
    connection.execute_batch(schema)?;
    Ok(connection)
}

/// Opens for bulk work: durable only after [`settle`].
fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "foreign_keys", "OFF")?;
    connection.pragma_update(None, "cache_size", -64_000)?;
    Ok(connection)
}

fn settle(connection: Connection) -> Result<()> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)
}

fn size(connection: &Connection) -> Result<u64> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

fn last_id(connection: &Connection, table: &str) -> Result<i64> {
    connection.query_row(&format!("SELECT ifnull(max(id), 0) FROM {table}"), [], |row| row.get(0))
}

fn scaled(whole: u64, fraction: f64) -> u64 {
    (whole as f64 * fraction).round() as u64
}

fn grow(
    connection: &mut Connection,
    target_bytes: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let mut bytes = size(connection)?;
    let mut next = last_id(connection, "orders")? + 1;
    while bytes < target_bytes {
        // Near the end the batches get smaller, so that the size is met closely.
        let missing = i64::try_from((target_bytes - bytes) / 4_000).unwrap_or(i64::MAX);
        let count = missing.clamp(1, BATCH_ORDERS);
        let transaction = connection.transaction()?;
        add_orders(&transaction, next, count)?;
        transaction.commit()?;
        next += count;
        bytes = size(connection)?;
        progress(bytes, target_bytes);
    }
    Ok(())
}

fn add_orders(transaction: &Transaction<'_>, first: i64, count: i64) -> Result<()> {
    const KINDS: [&str; 4] = ["placed", "paid", "packed", "shipped"];

    let mut random = Random::new(first.unsigned_abs());
    let mut customer =
        transaction.prepare("INSERT OR IGNORE INTO customers VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let mut order = transaction.prepare("INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let mut line = transaction.prepare("INSERT INTO order_lines VALUES (NULL, ?1, ?2, ?3, ?4)")?;
    let mut event = transaction.prepare("INSERT INTO events VALUES (NULL, ?1, ?2, ?3, ?4)")?;
    for id in first..first + count {
        let at = FIRST_ORDER_AT + id * 37;
        let newest_customer = id / ORDERS_A_CUSTOMER + 1;
        if id == 1 || id % ORDERS_A_CUSTOMER == 0 {
            let name = random.words(2);
            let email = format!("{}@example.org", name.replace(' ', "."));
            customer.execute(params![newest_customer, name, email, random.words(1), at])?;
        }
        let lines = 1 + random.below(5);
        let mut total = 0;
        for _ in 0..lines {
            let (quantity, price) = (1 + random.below(4), 99 + random.below(20_000));
            total += quantity * price;
            line.execute(params![id, format!("SKU-{:06}", random.below(40_000)), quantity, price])?;
        }
        let buyer = 1 + random.below(newest_customer);
        order.execute(params![id, buyer, at, "open", total])?;
        for (step, kind) in KINDS.iter().enumerate() {
            let bytes = 100 + random.below(1_200) as usize;
            event.execute(params![id, at + step as i64, kind, random.payload(bytes)])?;
        }
    }
    Ok(())
}

/// SplitMix64: small, fast, and the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x6d65_7263_7572_7921)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`.
    fn below(&mut self, bound: i64) -> i64 {
        (self.next() % bound.unsigned_abs()).cast_signed()
    }

    fn uuid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        let (one, two, three) = (high >> 32, high >> 16 & 0xffff, high & 0xfff);
        let (four, five) = (low >> 48 & 0x3fff | 0x8000, low & 0xffff_ffff_ffff);
        format!("{one:08x}-{two:04x}-4{three:03x}-{four:04x}-{five:012x}")
    }

    fn words(&mut self, count: usize) -> String {
        const WORDS: [&str; 32] = [
            "amber", "basket", "candle", "delta", "ember", "fabric", "garden", "harbor", "island",
            "jacket", "kettle", "ladder", "marble", "needle", "orange", "pepper", "quartz",
            "ribbon", "saddle", "timber", "umbrella", "velvet", "window", "yarrow", "zephyr",
            "anchor", "bridge", "copper", "drawer", "engine", "feather", "glass",
        ];
        let mut text = String::with_capacity(count * 8);
        for index in 0..count {
            if index > 0 {
                text.push(' ');
            }
            text.push_str(WORDS[(self.next() % WORDS.len() as u64) as usize]);
        }
        text
    }

    /// Text of about `bytes`: prose, digits or noise, so that it compresses well, some, or hardly.
    fn payload(&mut self, bytes: usize) -> String {
        const NOISE: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        match self.next() % 4 {
            0 | 1 => format!("{{\"note\":\"{}\"}}", self.words(bytes / 7)),
            2 => (0..bytes / 16).map(|_| format!("{:016x}", self.next())).collect(),
            _ => {
                let mut text = String::with_capacity(bytes);
                while text.len() < bytes {
                    let mut bits = self.next();
                    for _ in 0..10 {
                        text.push(char::from(NOISE[(bits & 63) as usize]));
                        bits >>= 6;
                    }
                }
                text
            }
        }
    }
}
