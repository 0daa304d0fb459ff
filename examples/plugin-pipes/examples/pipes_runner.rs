//! The process of the plugin where it is isolated: what an agent's `main` begins with, and no more.

fn main() {
    mercury::runner::serve_if_asked();
    eprintln!("started by an agent, this is the process of a plugin; by itself it is nothing");
}
