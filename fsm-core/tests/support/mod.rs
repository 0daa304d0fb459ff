//! What the behaviour tests share: journals to run over, and a process that can die.
#![allow(dead_code)] // Each test program uses its own part.

pub(crate) mod bench;
pub(crate) mod counted;
pub(crate) mod desk;
pub(crate) mod faulty;
pub(crate) mod lying;
pub(crate) mod medium;
pub(crate) mod parent;
pub(crate) mod process;
pub(crate) mod punctual;
pub(crate) mod telling;
pub(crate) mod world;

use fsm_core::RunId;

pub(crate) fn id(text: &str) -> RunId {
    RunId::new(text).unwrap()
}

/// Each of the functions named is a test over each journal.
#[macro_export]
macro_rules! on_each_journal {
    ($($behaviour:ident)+) => {
        mod over_memory {
            $(#[test] fn $behaviour() { super::$behaviour($crate::support::medium::Medium::memory()); })+
        }
        #[cfg(feature = "sqlite")]
        mod over_sqlite {
            $(#[test] fn $behaviour() { super::$behaviour($crate::support::medium::Medium::sqlite()); })+
        }
    };
}
