//! The one line that makes a crate a plugin.

/// Exports workloads: `export!(Sqlite);` or `export!(SqlServer, Reporting);`, once a crate.
///
/// The crate is a plugin when it is built as a `cdylib`. Built as an `rlib` it can be linked into
/// a host, beside other plugins, and the line does no harm there.
#[macro_export]
macro_rules! export {
    ($($workload:ty),+ $(,)?) => {
        $crate::export_entry!($crate::Bundle<($($workload,)+)>);
    };
}
