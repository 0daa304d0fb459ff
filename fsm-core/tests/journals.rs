//! Each journal keeps the contract of journals.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use fsm_core::{MemoryJournal, testing::journal_suite};

#[test]
fn the_memory_journal_keeps_the_contract() {
    let report = journal_suite(|| {
        let journal = MemoryJournal::new();
        move || journal.clone()
    });
    println!("{}", report.unwrap());
}

#[cfg(feature = "sqlite")]
mod over_sqlite {
    use fsm_core::{
        RunId,
        sqlite::{SqliteJournal, Store, rusqlite},
        testing::{Damage, Medium},
    };

    use super::*;

    struct File(tempfile::TempDir);

    impl File {
        fn path(&self) -> std::path::PathBuf {
            self.0.path().join("state.db")
        }
    }

    impl Medium for File {
        type Journal = SqliteJournal;

        fn open(&self) -> SqliteJournal {
            SqliteJournal::new(Store::open(&self.path()).unwrap()).unwrap()
        }

        fn damage(&self, run: &RunId, seq: u64, damage: Damage) -> bool {
            let connection = rusqlite::Connection::open(self.path()).unwrap();
            let sql = match damage {
                Damage::Remove => {
                    "DELETE FROM fsm_record WHERE seq = ?2
                     AND run_id = (SELECT id FROM fsm_run WHERE run = ?1)"
                }
                Damage::Alter => {
                    "UPDATE fsm_record SET body = '{\"torn' WHERE seq = ?2
                     AND run_id = (SELECT id FROM fsm_run WHERE run = ?1)"
                }
                _ => return false,
            };
            connection.execute(sql, (run.as_str(), seq)).unwrap() == 1
        }
    }

    #[test]
    fn the_sqlite_journal_keeps_the_contract() {
        let report = journal_suite(|| File(tempfile::tempdir().unwrap())).unwrap();
        println!("{report}");
        assert!(report.not_tried().is_empty(), "{report}");
    }
}
