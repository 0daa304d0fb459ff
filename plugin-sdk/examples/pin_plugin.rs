//! An administrator has received a plugin, knows that it is the vendor's, and allows exactly this
//! build to run: its hash goes into the agent's lock file. None of the plugin's code is run.
//!
//! ```text
//! cargo run -p plugin-sdk --features host --example pin_plugin -- plugins.lock libacme.so
//! ```

use std::error::Error;
use std::io;
use std::path::Path;

use plugin_sdk::host::{Image, PluginLock, Trust, target};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [lock_path, libraries @ ..] = arguments.as_slice() else {
        println!("usage: pin_plugin LOCK LIBRARY...");
        return Ok(());
    };
    let lock_path = Path::new(lock_path);
    let mut lock = match std::fs::read_to_string(lock_path) {
        Ok(text) => PluginLock::parse(&text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => PluginLock::new(),
        Err(error) => return Err(error.into()),
    };
    for library in libraries {
        // Whoever pins a library vouches for it; who may write to it is checked when it is loaded.
        let image = Image::open(Path::new(library), &Trust::development("it is being pinned"))?;
        let name = image.path().file_name().unwrap_or_default().to_string_lossy();
        let said = image.sidecar().map(|sidecar| (sidecar.id.as_str(), sidecar.version.as_str()));
        let (id, version) = said.unzip();
        let digest = image.digest()?;
        lock.pin(&name, id, version, &target(), digest);
        println!("{name} {} for {}: {digest}", version.unwrap_or("of any version"), target());
    }
    lock.write(lock_path)?;
    println!("written to {}", lock_path.display());
    Ok(())
}
