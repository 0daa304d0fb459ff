//! A run that takes a hundred transitions, one after the other, over the SQLite store.
//!
//! Each transition is durable before the next step starts, so the store syncs its file at least
//! once for each of them. That can be seen from outside:
//!
//! ```text
//! strace -c -f -e trace=fdatasync,fsync cargo run -p fsm-core --features sqlite --example hundred_transitions
//! ```

use fsm_core::{
    Body, Context, Data, Hosted, JournalError, Machine, RunId, Runtime, State, Step, check, go,
    sqlite::{SqliteJournal, Store},
    testing::ManualEnvironment,
};
use serde::{Deserialize, Serialize};

const TRANSITIONS: u32 = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(&directory.path().join("state.db"))?;
    let environment = ManualEnvironment::default();
    let runtime = Runtime::builder(SqliteJournal::new(store.clone())?, environment.clone()).build();
    runtime.register(Hosted::new(Counter, ()), "example")?;

    let run = RunId::new("count")?;
    let input = Data::encode(&Counting { left: TRANSITIONS - 1 })?;
    let history = environment.block_on(async {
        runtime.start(run.clone(), "counter", input).await?.end().await?;
        Ok::<_, Box<dyn std::error::Error>>(runtime.history(&run).await?)
    })?;
    let entered = history.iter().filter(|record| matches!(record.body, Body::Enter { .. })).count();
    let synchronous = environment.block_on(store.write(|tx| {
        Ok::<u8, JournalError>(tx.pragma_query_value(None, "synchronous", |row| row.get(0))?)
    }))?;
    println!("{} transitions, synchronous = {synchronous}", entered - 1);
    Ok(())
}

struct Counter;

impl Machine for Counter {
    const NAME: &'static str = "counter";
    type Host = ();
    type Initial = Counting;
    type States = (Counting, Counted);
}
check!(Counter);

#[derive(Serialize, Deserialize)]
struct Counting {
    left: u32,
}

impl State<Counter> for Counting {
    const NAME: &'static str = "counting";
    type Next = (Counting, Counted);

    async fn run(self, _: &Counter, _: &mut Context<'_, Counter>) -> Step<Self> {
        match self.left.checked_sub(1) {
            Some(left) => go(Counting { left }),
            None => go(Counted {}),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Counted {}

impl State<Counter> for Counted {
    const NAME: &'static str = "counted";
    type Next = ();
}
