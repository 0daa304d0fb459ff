//! The machine of a program that saves: its call, its pipes and its answer are one step, because
//! they share a connection that no restart survives.

use plugin_sdk::{
    Context, Fault, FinishedTake, Host, Machine, PointId, PointNotes, Seal, Sealed, State, Step,
    Take, check, go,
};
use serde::{Deserialize, Serialize};

use crate::{flow::Program, talk::ToProgram};

/// Saves what a program has called for.
#[derive(Clone, Copy, Debug)]
pub struct Save;

impl Machine for Save {
    const NAME: &'static str = "save";
    type Host = Host;
    type Initial = Receive;
    type States = (Receive, Sealed);
}
check!(Save);

/// Takes the call and its pipes, saves what comes out of them, and says so.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Receive {}

impl State<Save> for Receive {
    const NAME: &'static str = "receive";
    const DOC: &'static str = "Save what comes out of the program's pipes, and say so.";
    type Next = (Sealed,);

    async fn run(self, _: &Save, cx: &mut Context<'_, Save>) -> Step<Self> {
        let host = cx.host().clone();
        let (take, program) = match host.take("pipes").await? {
            // The agent died before the program could be told. Nobody waits for an answer.
            Take::Finished(take) => (take, None),
            Take::Begun(take) => {
                let mut program = Program::receive(host.call().await?)?;
                program.save(&take, cx).await?;
                (take.finish().await?, Some(program))
            }
        };
        go(Sealed { point: seal(&host, take, program).await? })
    }
}

/// Makes a point of the take, and tells the program: not before the point exists. A program that
/// does not hear it counts it as failed, and has more than it knows.
pub(crate) async fn seal(
    host: &Host,
    take: FinishedTake,
    program: Option<Program>,
) -> Result<PointId, Fault> {
    let point = Seal::full(take, PointNotes::new()).make(host).await?;
    if let Some(mut program) = program {
        // Nothing depends on it any more.
        let _ = program.talk.say(&ToProgram::End { point: point.as_str().to_owned() });
    }
    Ok(point)
}
