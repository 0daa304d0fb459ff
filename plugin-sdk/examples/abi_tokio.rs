//! A plugin whose jobs need tokio. It has a runtime of its own, and knows nothing of the host's.
#![forbid(unsafe_code)]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use plugin_sdk::TokioExecutor;
use plugin_sdk::abi::{BoxFuture, Call, Entry, Instance, Place, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

/// The plugin.
#[derive(Debug)]
pub struct OnTokio;

impl Entry for OnTokio {
    fn manifest() -> Vec<u8> {
        b"tokio".to_vec()
    }

    fn init(_: Bytes) -> Result<Box<dyn Instance>, Vec<u8>> {
        match TokioExecutor::new(NonZeroUsize::MIN) {
            Ok(tokio) => Ok(Box::new(Made { tokio: Arc::new(tokio), drops: Arc::default() })),
            Err(error) => Err(error.to_string().into_bytes()),
        }
    }
}

plugin_sdk::export_entry!(OnTokio);

struct Made {
    tokio: Arc<TokioExecutor>,
    drops: Arc<AtomicUsize>,
}

impl Instance for Made {
    fn start(&self, call: Call) -> BoxFuture<Reply> {
        let drops = self.drops.clone();
        Box::pin(async move {
            let request = String::from_utf8_lossy(&call.request).into_owned();
            let (_, verb) = request.split_once(' ').unwrap_or_default();
            let done = match verb {
                "timer" => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Ok("ticked".to_owned())
                }
                "sockets" => echo().await.map_err(|error| error.to_string()),
                "spawn blocking" => tokio::task::spawn_blocking(|| "blocked".to_owned())
                    .await
                    .map_err(|error| error.to_string()),
                "hold" => {
                    let _held = NeedsRuntime(drops);
                    let _ = call.host.call("holding", "").await;
                    std::future::pending().await
                }
                "drops" => Ok(drops.load(Ordering::SeqCst).to_string()),
                other => Err(format!("no such request: {other}")),
            };
            done.map_or_else(Reply::error, Reply::ok)
        })
    }

    fn place(&self, request: &Bytes) -> Place {
        match request.split(|byte| *byte == b' ').next() {
            Some(b"on") => Place::On(self.tokio.clone()),
            _ => Place::Within(self.tokio.clone()),
        }
    }
}

async fn echo() -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut near = TcpStream::connect(listener.local_addr()?).await?;
    let (mut far, _) = listener.accept().await?;
    near.write_all(b"hello").await?;
    let mut heard = [0; 5];
    far.read_exact(&mut heard).await?;
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

/// Panics when it is dropped outside of a runtime.
struct NeedsRuntime(Arc<AtomicUsize>);

impl Drop for NeedsRuntime {
    fn drop(&mut self) {
        drop(Handle::current());
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
