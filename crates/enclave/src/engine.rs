//! The thread that computes: one inference after the other, with a bounded queue before it.

use std::time::{Duration, Instant};

use privet_graph::Tensor;
use privet_keys::Grant;
use tokio::sync::{mpsc, oneshot};

use crate::error::EnclaveError;
use crate::wire::ModelInfo;

/// A model that is ready to run. It stays on the thread that made it.
pub trait Program {
    /// What it is, and what it takes and gives.
    fn info(&self) -> &ModelInfo;

    /// Computes. Inputs and outputs are in the order of [`Program::info`], and have its types and shapes.
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
    loaded: impl FnOnce(Result<ModelInfo, EnclaveError>) + Send,
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
        loaded(Ok(program.info().clone()));
        while let Some(job) = jobs.blocking_recv() {
            if is_over() {
                break;
            }
            // Its client has gone.
            if job.reply.is_closed() {
                continue;
            }
            let began = Instant::now();
            let done = program.run(job.inputs).map(|outputs| Done {
                outputs,
                queued: began.duration_since(job.entered),
                computed: began.elapsed(),
            });
            // Nobody waits where the client has gone.
            drop(job.reply.send(done));
        }
    });
    Ok(())
}
