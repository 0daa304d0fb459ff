//! A turnstile stands at a station. It is locked until somebody has paid: three coins open it.
//! One person walks through, and the turnstile has done its work for this visitor.
//!
//! Two of its states do something, and the third is the end. The program draws the machine, runs
//! it, and shows what the journal remembers of the run: all that another process would need to
//! continue it.

use fsm_core::{
    Body, Context, Graph, Hosted, Machine, MemoryJournal, RunId, Runtime, State, Step, check, go,
    testing::ManualEnvironment,
};
use serde::{Deserialize, Serialize};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    print!("{}", story()?);
    Ok(())
}

pub(crate) fn story() -> Result<String, Box<dyn std::error::Error>> {
    let graph = Graph::of::<Turnstile>();
    let mut told = format!("The machine `{}`:\n\n{}\n", graph.machine, graph.to_text());
    told += &format!("As Mermaid:\n\n{}\n", graph.to_mermaid(None));

    // The executor and the clock of this program; time and tasks come in from outside.
    let environment = ManualEnvironment::default();
    let runtime = Runtime::builder(MemoryJournal::new(), environment.clone()).build();
    runtime.register(Hosted::new(Turnstile { price: 3 }, ()), "example")?;

    let visitor = RunId::new("visitor-1")?;
    let (end, history) = environment.block_on(async {
        let run = runtime.begin::<Turnstile>(visitor.clone(), &Locked { coins: 0 }).await?;
        let end = run.end().await?;
        Ok::<_, Box<dyn std::error::Error>>((end, runtime.history(&visitor).await?))
    })?;

    told += "What the journal remembers of `visitor-1`:\n\n";
    for record in &history {
        told += &match &record.body {
            Body::Enter { state, data, .. } => {
                format!("{}. enter {state} {}\n", record.seq, data.as_text().unwrap_or("?"))
            }
            body => format!("{}. {}\n", record.seq, body.kind()),
        };
    }
    told += &format!("\nThe run has {} in `{}`.\n", end.ending.as_str(), end.state);
    Ok(told)
}

/// What all visitors share.
pub(crate) struct Turnstile {
    pub(crate) price: u32,
}

impl Machine for Turnstile {
    const NAME: &'static str = "turnstile";
    type Host = ();
    type Initial = Locked;
    type States = (Locked, Open, Passed);
}
check!(Turnstile);

#[derive(Serialize, Deserialize)]
pub(crate) struct Locked {
    pub(crate) coins: u32,
}

impl State<Turnstile> for Locked {
    const NAME: &'static str = "locked";
    const DOC: &'static str = "Take a coin; open when the price is paid.";
    type Next = (Locked, Open);

    async fn run(self, turnstile: &Turnstile, _: &mut Context<'_, Turnstile>) -> Step<Self> {
        let coins = self.coins + 1;
        if coins < turnstile.price { go(Locked { coins }) } else { go(Open { coins }) }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Open {
    coins: u32,
}

impl State<Turnstile> for Open {
    const NAME: &'static str = "open";
    const DOC: &'static str = "Let one person through.";
    type Next = (Passed,);

    async fn run(self, _: &Turnstile, _: &mut Context<'_, Turnstile>) -> Step<Self> {
        go(Passed { paid: self.coins })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Passed {
    paid: u32,
}

impl State<Turnstile> for Passed {
    const NAME: &'static str = "passed";
    const DOC: &'static str = "The visitor is inside.";
    type Next = ();
}
