//! What it costs to check and load a plugin's library.
//!
//! ```text
//! cargo bench -p plugin-sdk --features host --bench load
//! ```
//!
//! Each load is of a copy under a path of its own, so that it is a first load; the copy is warm in
//! the page cache. Prints a table, no more: a mapped library is never unloaded, which
//! leaves nothing to repeat ten thousand times.

#[cfg(all(feature = "host", target_os = "linux"))]
fn main() {
    linux::main();
}

#[cfg(not(all(feature = "host", target_os = "linux")))]
fn main() {}

#[cfg(all(feature = "host", target_os = "linux"))]
mod linux {
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    use plugin_sdk::host::{Digest, Image, Library, PluginLock, Trust, target};

    const LOADS: usize = 50;

    /// The example plugin, as it was built for this profile: the newest with its name.
    fn library() -> Option<PathBuf> {
        let program = std::env::current_exe().ok()?;
        let examples = program.parent()?.parent()?.join("examples");
        let found = examples.join("libtraced_plugin.so");
        found.is_file().then_some(found)
    }

    fn row(what: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let [best, median] =
            [times[0], times[times.len() / 2]].map(|time| time.as_secs_f64() * 1e3);
        println!("{what:<46} median {median:7.3} ms, best {best:7.3} ms");
    }

    /// Takes the time of `work` on each copy.
    fn each(copies: &[PathBuf], mut work: impl FnMut(&Path)) -> Vec<Duration> {
        let time = |copy: &PathBuf| {
            let begun = Instant::now();
            work(copy);
            begun.elapsed()
        };
        copies.iter().map(time).collect()
    }

    pub(super) fn main() {
        let Some(library) = library() else {
            println!("build the examples for this profile first: --examples --release");
            return;
        };
        let bytes = std::fs::read(&library).expect("the plugin is readable");
        println!("a library of {} KiB, {LOADS} first loads each", bytes.len() / 1024);
        let dir = std::env::temp_dir().join(format!("mercury-load-{}", std::process::id()));
        let mut pins = PluginLock::new();
        // As many as an agent may have.
        for other in 0..9 {
            let name = format!("libother{other}.so");
            pins.pin(&name, Some("other"), Some("1.0.0"), &target(), Digest::of(name.as_bytes()));
        }
        pins.pin("libacme.so", Some("plugin-traced"), Some("1.2.3"), &target(), Digest::of(&bytes));
        let copies = |kind: &str| -> Vec<PathBuf> {
            let copy = |n: usize| {
                let dir = dir.join(format!("{kind}-{n}"));
                std::fs::create_dir_all(&dir).expect("a directory");
                let path = dir.join("libacme.so");
                std::fs::write(&path, &bytes).expect("it is written");
                path
            };
            (0..LOADS).map(copy).collect()
        };
        let [opened, hashed, placed, sealed, pinned] =
            ["opened", "hashed", "placed", "sealed", "pinned"].map(copies);
        let lock = dir.join("plugins.lock");
        pins.write(&lock).expect("it is written");
        let open = || Trust::development("a measurement");
        let trust = open().pinned(&lock);

        row(
            "checked: found, copied and sealed",
            each(&opened, |path| {
                Image::open(path, &open()).expect("it is trusted");
            }),
        );
        row(
            "  the same, hashed and looked up in the lock",
            each(&hashed, |path| {
                Image::open(path, &trust).expect("it is pinned");
            }),
        );
        row(
            "loaded in place, unchecked",
            each(&placed, |path| {
                Library::load(path, &open().in_place()).expect("it loads");
            }),
        );
        row(
            "loaded from a sealed copy",
            each(&sealed, |path| {
                Library::load(path, &open()).expect("it loads");
            }),
        );
        row(
            "  the same, hashed and looked up in the lock",
            each(&pinned, |path| {
                Library::load(path, &trust).expect("it loads");
            }),
        );
        let _ = std::fs::remove_dir_all(&dir);
    }
}
