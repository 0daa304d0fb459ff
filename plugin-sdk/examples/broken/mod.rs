//! What the broken plugins share: a workload of files whose backup is the machine `M`.

use std::{fs, marker::PhantomData, path::PathBuf, sync::Arc};

use plugin_sdk::{
    Config, Decision, Fault, Host, Item, ItemId, Machine, Machines, Manifest, OpenTake, Operation,
    PointKind, PointMeta, RestoreRequest, RunPlan, Wanted, Workload, async_trait,
};

/// The workload `M::NAME`: each item is a file, named by its path.
#[derive(Debug)]
pub(crate) struct Files<M>(PhantomData<M>);

#[async_trait]
impl<M> Workload for Files<M>
where
    M: Machine<Host = Host> + Default,
    M::Initial: From<PathBuf> + Send,
{
    fn manifest() -> Manifest {
        Manifest::new(format!("plugin-{}", M::NAME), "0.1.0", M::NAME)
            .operation(Operation::Backup(PointKind::Full))
    }

    fn open(_: Config) -> Result<Self, Fault> {
        Ok(Files(PhantomData))
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        Ok(Vec::new())
    }

    async fn decide(&self, item: &ItemId, _: &Wanted, _: &[PointMeta]) -> Result<Decision, Fault> {
        let input = M::Initial::from(PathBuf::from(item.name()));
        Ok(Decision::Run(RunPlan::new::<M>(input)?))
    }

    async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
        Err(Fault::user("broken.restore", "restores are not offered"))
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new().with(M::default())
    }
}

/// Sends a file as the stream `file`, a small part at a time; `before_each` may stop it.
pub(crate) async fn send(
    take: &OpenTake,
    path: &PathBuf,
    before_each: impl Fn() -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut sink = take.stream("file").await?;
    for part in fs::read(path)?.chunks(64) {
        before_each()?;
        let mut buffer = sink.buffer(part.len()).await?;
        buffer[..part.len()].copy_from_slice(part);
        sink.send(buffer.freeze(part.len())).await?;
    }
    sink.finish().await.map(drop)
}
