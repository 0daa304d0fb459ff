//! What a plugin is, to this layer: a manifest, a way to make instances, and requests that they
//! serve.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use abi_stable::prefix_type::WithMetadata;
use bytes::Bytes;

use super::bytes::AbiBytes;
use super::exec::{Executor, own, run_here, run_on, run_within};
use super::guard::contain;
use super::host_calls::HostHandle;
use super::log;
use super::reply::Reply;
use super::root::{
    AbiCall, AbiInstance, AbiOutcome, Exported, HostTable_Ref, PluginRoot, PluginRoot_Ref,
    RootProvider,
};
use super::task::{AbiTask, BoxFuture};
use fsm_core::Cancellation;

/// A plugin.
///
/// Both functions may be called several times and from any thread; there is no state but what
/// `init` returns. Panics are contained and reported to the host as such.
pub trait Entry: 'static {
    /// The manifest, a document.
    fn manifest() -> Vec<u8>;

    /// An instance, from its configuration document.
    ///
    /// # Errors
    ///
    /// An error document for the host.
    fn init(config: Bytes) -> Result<Box<dyn Instance>, Vec<u8>>;
}

/// An initialised plugin.
pub trait Instance: Send + Sync + 'static {
    /// Starts to serve a request; returns at once.
    ///
    /// The job is dropped at its next `await` when the host abandons it, and should end soon
    /// after [`Call::cancel`] is raised. A panic in it is contained and ends it.
    fn start(&self, call: Call) -> BoxFuture<Reply>;

    /// Where the job of this request runs. By default on a thread of the plugin's own, where it
    /// may block.
    fn place(&self, request: &Bytes) -> Place {
        let _ = request;
        Place::Own
    }
}

/// One request, as an instance gets it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Call {
    /// The request's document.
    pub request: Bytes,
    /// The host, for the time of this request.
    pub host: HostHandle,
    /// Raised when the host asks the job to stop, and when it has abandoned it.
    pub cancel: Cancellation,
}

/// Where a job runs.
#[derive(Clone)]
#[non_exhaustive]
pub enum Place {
    /// On a thread of the plugin's own; the job may block it.
    Own,
    /// On this executor.
    On(Arc<dyn Executor>),
    /// Polled by the host, on the host's thread: for work that never blocks and soon ends.
    Inline,
    /// Polled by the host, in the context of this executor.
    Within(Arc<dyn Executor>),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "Own",
            Self::On(_) => "On(..)",
            Self::Inline => "Inline",
            Self::Within(_) => "Within(..)",
        })
    }
}

/// Whether this code is in a library of its own or part of the host's program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Linkage {
    Dynamic,
    Static,
}

/// The root of a plugin that is linked into this program.
#[must_use]
pub fn root<E: Entry>() -> PluginRoot_Ref {
    PluginRoot_Ref(RootOf::<E>::STATIC.as_prefix())
}

impl<E: Entry> RootProvider for Exported<E> {
    type Root = PluginRoot_Ref;

    fn root() -> PluginRoot_Ref {
        PluginRoot_Ref(RootOf::<E>::DYNAMIC.as_prefix())
    }
}

struct RootOf<E>(PhantomData<E>);

impl<E: Entry> RootOf<E> {
    abi_stable::staticref! {
        const STATIC: WithMetadata<PluginRoot> = WithMetadata::new(PluginRoot {
            manifest: manifest::<E>,
            init: init_linked::<E>,
            start,
        });
        const DYNAMIC: WithMetadata<PluginRoot> = WithMetadata::new(PluginRoot {
            manifest: manifest::<E>,
            init: init_loaded::<E>,
            start,
        });
    }
}

extern "C" fn manifest<E: Entry>() -> AbiOutcome<AbiBytes> {
    match contain(E::manifest) {
        Ok(manifest) => AbiOutcome::Ok(Bytes::from(manifest).into()),
        Err(text) => AbiOutcome::Panicked(text.into()),
    }
}

extern "C" fn init_linked<E: Entry>(
    host: HostTable_Ref,
    config: AbiBytes,
) -> AbiOutcome<AbiInstance> {
    init::<E>(Linkage::Static, host, config)
}

extern "C" fn init_loaded<E: Entry>(
    host: HostTable_Ref,
    config: AbiBytes,
) -> AbiOutcome<AbiInstance> {
    init::<E>(Linkage::Dynamic, host, config)
}

fn init<E: Entry>(
    linkage: Linkage,
    host: HostTable_Ref,
    config: AbiBytes,
) -> AbiOutcome<AbiInstance> {
    let made = contain(|| {
        // A linked plugin shares the program's log and panic hook already.
        if linkage == Linkage::Dynamic {
            log::install(host);
        }
        E::init(config.into_bytes())
    });
    match made {
        Ok(Ok(instance)) => AbiOutcome::Ok(AbiInstance::new(instance)),
        Ok(Err(error)) => AbiOutcome::Error(Bytes::from(error).into()),
        Err(text) => AbiOutcome::Panicked(text.into()),
    }
}

unsafe extern "C" fn start(instance: *const (), call: AbiCall) -> AbiTask {
    // SAFETY: the caller passes the `data` of an instance of this root, which `init` made of a
    // `Box<dyn Instance>`, and which it has not dropped.
    let instance = unsafe { &*instance.cast::<Box<dyn Instance>>() };
    let started = contain(|| {
        let cancel = Cancellation::new();
        let id = call.id;
        let request = call.request.into_bytes();
        let place = instance.place(&request);
        let host = HostHandle::from_abi(call.host);
        let job =
            log::within(id, || instance.start(Call { request, host, cancel: cancel.clone() }));
        let job = Logged { id, span: tracing::Span::current(), job };
        let answer = match place {
            Place::Own => run_on(&*own(), Box::pin(job), cancel.clone()),
            Place::On(executor) => run_on(&*executor, Box::pin(job), cancel.clone()),
            Place::Inline => run_here(Box::pin(job), cancel.clone()),
            Place::Within(executor) => run_within(executor, Box::pin(job), cancel.clone()),
        };
        AbiTask::new(answer, cancel)
    });
    started.unwrap_or_else(AbiTask::panicked)
}

/// A job whose log records carry its request and, in the host's own program, the host's span.
struct Logged {
    id: u64,
    span: tracing::Span,
    job: BoxFuture<Reply>,
}

impl Future for Logged {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let this = &mut *self;
        let _entered = this.span.enter();
        log::within(this.id, || this.job.as_mut().poll(cx))
    }
}

/// Exports a type that implements [`Entry`](crate::abi::Entry) from a dynamic library.
///
/// The symbol's name ends with the name of the crate, so that two plugins can also be linked into
/// one program. A crate that is built with `panic = "abort"` does not compile: a panic of a plugin
/// would end its host.
#[macro_export]
macro_rules! export_entry {
    (@root $provider:ty) => {
        #[cfg(panic = "abort")]
        ::core::compile_error!(
            "a plugin must be built with panic = \"unwind\": its host contains its panics"
        );
        const _: () = {
            #[unsafe(export_name = ::core::concat!(
                "mercury_plugin_v1_",
                ::core::env!("CARGO_CRATE_NAME")
            ))]
            pub static MERCURY_PLUGIN: $crate::abi::PluginHeader =
                $crate::abi::header::<$provider>();
        };
    };
    ($entry:ty) => {
        $crate::export_entry!(@root $crate::abi::Exported<$entry>);
    };
}
