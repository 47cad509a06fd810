//! The thread that computes: one inference after the other, with a bounded queue before it.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use privet_graph::Tensor;
use privet_keys::Grant;
use tokio::sync::{mpsc, oneshot};

use crate::error::EnclaveError;
use crate::next::Forward;
use crate::stages::Crossing;
use crate::wire::ModelInfo;

/// A model that is ready to run. It stays on the thread that made it.
pub trait Program {
    /// What it is, and what it takes and gives.
    fn info(&self) -> &ModelInfo;

    /// What another worker gives this one, where it has a later part of a model.
    fn entrance(&self) -> Option<Arc<Crossing>> {
        None
    }

    /// What this one gives another worker, where it has an earlier part of a model.
    fn exit(&self) -> Option<Arc<Crossing>> {
        None
    }

    /// Computes. Inputs and outputs are in the order of [`Program::info`], and have its types and shapes; with an exit, what
    /// crosses there takes the place of the outputs.
    ///
    /// # Errors
    /// Weights that cannot be read; inputs that the model cannot use.
    fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EnclaveError>;
}

/// Inputs, and where their outputs go.
pub(crate) struct Job {
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) entered: Instant,
    pub(crate) reply: oneshot::Sender<Result<Done, EnclaveError>>,
}

/// What there is to know of a program on its thread.
pub(crate) struct Loaded {
    pub(crate) info: ModelInfo,
    pub(crate) entrance: Option<Arc<Crossing>>,
    pub(crate) exit: Option<Arc<Crossing>>,
}

/// Outputs, and how long they took.
pub(crate) struct Done {
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) queued: Duration,
    pub(crate) computed: Duration,
}

/// Makes a program on the thread that will run it.
pub(crate) type Load = dyn FnOnce(&Grant) -> Result<Box<dyn Program>, EnclaveError> + Send;

/// Loads the program, says what it is, and computes until nobody can send jobs any more, or `is_over` says so; then the program
/// goes, and wipes what it holds.
pub(crate) fn compute(
    load: Box<Load>,
    grant: Grant,
    mut jobs: mpsc::Receiver<Job>,
    threads: usize,
    loaded: impl FnOnce(Result<Loaded, EnclaveError>) + Send,
    next: Option<SyncSender<Forward>>,
    is_over: impl Fn() -> bool + Send,
) -> Result<(), EnclaveError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|_| EnclaveError::Internal("the operating system gave no threads"))?;
    // On a thread of the pool, so that products take the pool's threads and no others.
    pool.install(move || {
        let made = load(&grant);
        drop(grant);
        let mut program = match made {
            Ok(program) => program,
            Err(error) => return loaded(Err(error)),
        };
        let (info, entrance, exit) = (program.info().clone(), program.entrance(), program.exit());
        loaded(Ok(Loaded { info, entrance, exit }));
        while let Some(job) = jobs.blocking_recv() {
            if is_over() {
                break;
            }
            // Its client has gone.
            if job.reply.is_closed() {
                continue;
            }
            let began = Instant::now();
            let outputs = program.run(job.inputs);
            let (queued, computed) = (began.duration_since(job.entered), began.elapsed());
            let reply = job.reply;
            // Nobody waits where the client has gone.
            match (outputs, &next) {
                (Ok(tensors), Some(next)) => drop(next.send(Forward { tensors, queued, computed, reply })),
                (outputs, _) => drop(reply.send(outputs.map(|outputs| Done { outputs, queued, computed }))),
            }
        }
    });
    Ok(())
}
