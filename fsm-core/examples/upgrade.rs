//! A library lends books with a program that is replaced every now and then, while the books are
//! out. Each loan is a run; the journal is a SQLite file, and outlives processes and versions.
//!
//! Version 1 misses a book that is not back after a month. Version 2 renews the loan instead: it
//! has renamed a state, counts the renewals, and its `migrate` translates what version 1 wrote.
//! Its author forgot the books that were missed already. The run of such a book is quarantined:
//! left as it is, where everybody can see it and why, while the other loans go on. Version 3
//! knows what to do with it.
//!
//! The three versions stand here side by side, as modules. In a real program there is one, and
//! the others are its past.

use std::{error::Error, path::Path, time::Duration};

use fsm_core::{
    AnyMachine, Hosted, RunEvent, RunId, Runtime, Signal, Watched,
    sqlite::{SqliteJournal, Store},
    testing::ManualEnvironment,
};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

const MONTH: Duration = Duration::from_secs(30 * 86_400);

type Answer<T> = Result<T, Box<dyn Error>>;

fn main() -> Answer<()> {
    print!("{}", story()?);
    Ok(())
}

pub(crate) fn story() -> Answer<String> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("library.db");
    let [dracula, emma, ulysses] =
        ["dracula", "emma", "ulysses"].map(|book| RunId::new(book).expect("a book's name is one"));
    let environment = ManualEnvironment::default();
    let mut told = String::new();

    // One book is missed when the two others are lent.
    let library = Library::open(&file, &environment, Hosted::new(one::Loans, ()))?;
    environment.block_on(async {
        library.lend(&emma, "Jane").await?;
        library.after(MONTH, &emma, "missed").await?;
        library.lend(&dracula, "Bram").await?;
        library.lend(&ulysses, "James").await?;
        told += "Version 1 lends three books:\n";
        told += &library.shelf([&dracula, &emma, &ulysses]).await?;
        Answer::Ok(())
    })?;
    library.close();

    // The other version goes on with what it can read.
    let library = Library::open(&file, &environment, Hosted::new(two::Loans, ()))?;
    environment.block_on(async {
        let recovered = library.runtime.recover().await?;
        told += &format!("\nVersion 2 goes on with {} loans, and not with:\n", recovered.runs);
        for (run, why) in recovered.quarantined {
            told += &format!("  {run}: {why}\n");
        }
        if let Err(error) = library.bring_back(&emma).await {
            told += &format!("  ({error})\n");
        }
        library.bring_back(&ulysses).await?;
        library.runtime.attach(&ulysses).await?.end().await?;
        library.after(MONTH, &dracula, "on_loan").await?;
        told += "After a month:\n";
        told += &library.shelf([&dracula, &emma, &ulysses]).await?;
        Answer::Ok(())
    })?;
    library.close();

    // Nothing is lost: the run waits in the file for a version that knows better.
    let library = Library::open(&file, &environment, Hosted::new(three::Loans, ()))?;
    environment.block_on(async {
        let recovered = library.runtime.recover().await?;
        let (runs, left) = (recovered.runs, recovered.quarantined.len());
        told += &format!("\nVersion 3 goes on with {runs} loans, {left} are quarantined.\n");
        library.bring_back(&emma).await?;
        library.runtime.attach(&emma).await?.end().await?;
        told += &library.shelf([&dracula, &emma, &ulysses]).await?;
        Answer::Ok(())
    })?;
    library.close();
    Ok(told)
}

/// A process: one version of the machine, over the file.
struct Library {
    runtime: Runtime,
    environment: ManualEnvironment,
}

impl Library {
    fn open(
        file: &Path,
        environment: &ManualEnvironment,
        machine: impl AnyMachine + 'static,
    ) -> Answer<Self> {
        let journal = SqliteJournal::new(Store::open(file)?)?;
        let environment = environment.clone();
        let runtime = Runtime::builder(journal, environment.clone()).build();
        runtime.register(machine, "example")?;
        Ok(Library { runtime, environment })
    }

    /// The process is gone, in the middle of whatever it did.
    fn close(self) {
        self.environment.drop_tasks();
    }

    async fn lend(&self, book: &RunId, reader: &str) -> Answer<()> {
        let lent = one::Lent { reader: reader.to_owned() };
        self.runtime.begin::<one::Loans>(book.clone(), &lent).await?;
        Ok(())
    }

    async fn bring_back(&self, book: &RunId) -> Answer<()> {
        self.runtime.tell(book, "desk", &BroughtBack {}).await?;
        Ok(())
    }

    /// Lets time pass, and waits until `book` has entered `state`.
    async fn after(&self, time: Duration, book: &RunId, state: &str) -> Answer<()> {
        let mut events = self.runtime.watch_run(book);
        self.environment.advance(time);
        while let Some(event) = events.next().await {
            if matches!(event, Watched::Event(_, RunEvent::Entered { state: s, .. }) if s == state)
            {
                return Ok(());
            }
        }
        Err("the runtime has gone".into())
    }

    /// Where the loans of `books` stand, by the journal.
    async fn shelf(&self, books: [&RunId; 3]) -> Answer<String> {
        let mut told = String::new();
        for book in books {
            let loan = self.runtime.inspect(book).await?.ok_or("no such loan")?;
            let (version, state) = (loan.version, loan.state);
            let data = loan.data.as_text().unwrap_or("?");
            told += &format!("  {:8} version {version}  {state:8}  {data}\n", book.as_str());
        }
        Ok(told)
    }
}

/// The reader has brought the book back. A name that all versions know.
#[derive(Serialize, Deserialize)]
pub(crate) struct BroughtBack {}

impl Signal for BroughtBack {
    const NAME: &'static str = "brought_back";
}

pub(crate) mod one {
    use fsm_core::{Context, Machine, Signal, State, Step, Wait, check, go};
    use serde::{Deserialize, Serialize};

    use super::{BroughtBack, MONTH};

    pub(crate) struct Loans;

    impl Machine for Loans {
        const NAME: &'static str = "loan";
        type Host = ();
        type Initial = Lent;
        type States = (Lent, Missed, Returned);
    }
    check!(Loans);

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Lent {
        pub(crate) reader: String,
    }

    impl State<Loans> for Lent {
        const NAME: &'static str = "lent";
        const WAIT: Wait = Wait::for_signals(&[BroughtBack::NAME]).at_most(MONTH);
        type Next = (Returned, Missed);

        async fn run(self, _: &Loans, cx: &mut Context<'_, Loans>) -> Step<Self> {
            match cx.take::<BroughtBack>()? {
                Some(_) => go(Returned { reader: self.reader }),
                None => go(Missed { reader: self.reader }),
            }
        }
    }

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Missed {
        reader: String,
    }

    impl State<Loans> for Missed {
        const NAME: &'static str = "missed";
        const WAIT: Wait = Wait::for_signals(&[BroughtBack::NAME]);
        type Next = (Returned,);

        async fn run(self, _: &Loans, cx: &mut Context<'_, Loans>) -> Step<Self> {
            cx.take::<BroughtBack>()?;
            go(Returned { reader: self.reader })
        }
    }

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Returned {
        reader: String,
    }

    impl State<Loans> for Returned {
        const NAME: &'static str = "returned";
        type Next = ();
    }
}

pub(crate) mod two {
    use fsm_core::{Context, Data, Fault, Machine, Signal, State, Step, Wait, check, go};
    use serde::{Deserialize, Serialize};

    use super::{BroughtBack, MONTH};

    pub(crate) struct Loans;

    impl Machine for Loans {
        const NAME: &'static str = "loan";
        const VERSION: u32 = 2;
        type Host = ();
        type Initial = OnLoan;
        type States = (OnLoan, Returned);

        fn migrate(_: u32, state: &str, data: Data) -> Result<(String, Data), Fault> {
            match state {
                "lent" => {
                    // What version 1 wrote, as it was then: not a type that may change again.
                    #[derive(Deserialize)]
                    struct Lent {
                        reader: String,
                    }
                    let Lent { reader } = data.decode()?;
                    Ok(("on_loan".to_owned(), Data::encode(&OnLoan { reader, renewals: 0 })?))
                }
                _ => Ok((state.to_owned(), data)),
            }
        }
    }
    check!(Loans);

    #[derive(Serialize, Deserialize)]
    pub(crate) struct OnLoan {
        pub(crate) reader: String,
        pub(crate) renewals: u32,
    }

    impl State<Loans> for OnLoan {
        const NAME: &'static str = "on_loan";
        const WAIT: Wait = Wait::for_signals(&[BroughtBack::NAME]).at_most(MONTH);
        type Next = (OnLoan, Returned);

        async fn run(self, _: &Loans, cx: &mut Context<'_, Loans>) -> Step<Self> {
            match cx.take::<BroughtBack>()? {
                Some(_) => go(Returned { reader: self.reader, renewals: self.renewals }),
                None => go(OnLoan { renewals: self.renewals + 1, ..self }),
            }
        }
    }

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Returned {
        reader: String,
        // What has ended is not migrated: who reads the result of an old loan finds no such field.
        #[serde(default)]
        renewals: u32,
    }

    impl State<Loans> for Returned {
        const NAME: &'static str = "returned";
        type Next = ();
    }
}

pub(crate) mod three {
    use fsm_core::{Context, Data, Fault, Machine, Signal, State, Step, Wait, check, go};
    use serde::{Deserialize, Serialize};

    use super::{BroughtBack, MONTH};

    pub(crate) struct Loans;

    impl Machine for Loans {
        const NAME: &'static str = "loan";
        const VERSION: u32 = 3;
        type Host = ();
        type Initial = OnLoan;
        type States = (OnLoan, Returned);

        fn migrate(_: u32, state: &str, data: Data) -> Result<(String, Data), Fault> {
            match state {
                // A book that was missed is on loan, for longer than anybody thought.
                "lent" | "missed" => {
                    #[derive(Deserialize)]
                    struct Lent {
                        reader: String,
                    }
                    let Lent { reader } = data.decode()?;
                    Ok(("on_loan".to_owned(), Data::encode(&OnLoan { reader, renewals: 0 })?))
                }
                _ => Ok((state.to_owned(), data)),
            }
        }
    }
    check!(Loans);

    #[derive(Serialize, Deserialize)]
    pub(crate) struct OnLoan {
        reader: String,
        renewals: u32,
    }

    impl State<Loans> for OnLoan {
        const NAME: &'static str = "on_loan";
        const WAIT: Wait = Wait::for_signals(&[BroughtBack::NAME]).at_most(MONTH);
        type Next = (OnLoan, Returned);

        async fn run(self, _: &Loans, cx: &mut Context<'_, Loans>) -> Step<Self> {
            match cx.take::<BroughtBack>()? {
                Some(_) => go(Returned { reader: self.reader, renewals: self.renewals }),
                None => go(OnLoan { renewals: self.renewals + 1, ..self }),
            }
        }
    }

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Returned {
        reader: String,
        // What has ended is not migrated: who reads the result of an old loan finds no such field.
        #[serde(default)]
        renewals: u32,
    }

    impl State<Loans> for Returned {
        const NAME: &'static str = "returned";
        type Next = ();
    }
}
