//! The thread that computes: one inference after the other, with a bounded queue before it.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use privet_graph::Tensor;
use privet_keys::Grant;
use tokio::sync::{mpsc, oneshot};

use crate::error::EnclaveError;
use crate::next::Forward;
use crate::stages::Crossing;
use crate::wire::ModelInfo;

/// How often it is looked whether what asks the next worker is free.
const GLANCE: Duration = Duration::from_millis(2);

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
                (Ok(tensors), Some(next)) => {
                    hand_on(next, Forward { tensors, queued, computed, reply }, &is_over);
                }
                (outputs, _) => drop(reply.send(outputs.map(|outputs| Done { outputs, queued, computed }))),
            }
        }
    });
    Ok(())
}

/// Gives what was computed to what asks the next worker. That one may be stuck, as long as its host holds messages back: the job is
/// given up when nobody waits for it any more or `is_over` says so, lest this thread and the weights on it stay.
fn hand_on(next: &SyncSender<Forward>, mut job: Forward, is_over: &impl Fn() -> bool) {
    while let Err(TrySendError::Full(back)) = next.try_send(job) {
        if back.reply.is_closed() || is_over() {
            return;
        }
        job = back;
        thread::sleep(GLANCE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::sync_channel;

    use privet_seal::{ModelId, ModelVersion};

    use super::*;
    use crate::tenure::tests::grant;

    /// Gives nothing, and says so.
    struct Idle(ModelInfo, SyncSender<()>);

    impl Program for Idle {
        fn info(&self) -> &ModelInfo {
            &self.0
        }

        fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EnclaveError> {
            let _ = self.1.send(());
            Ok(inputs)
        }
    }

    #[test]
    fn a_stuck_worker_behind_does_not_keep_the_program() {
        // Either the key ends, or all clients go.
        for key_ends in [true, false] {
            let (ran, runs) = sync_channel(8);
            let load = move |_: &Grant| -> Result<Box<dyn Program>, EnclaveError> {
                let (id, version) = (ModelId::from_bytes([7; 16]), ModelVersion::FIRST);
                let (inputs, outputs, endings) = (Vec::new(), Vec::new(), Vec::new());
                let digest = "ab".repeat(32).parse()?;
                Ok(Box::new(Idle(ModelInfo { id, version, digest, inputs, outputs, endings }, ran)))
            };
            let (sender, jobs) = mpsc::channel(8);
            // Nothing ever takes from it.
            let (next, stuck) = sync_channel(1);
            let over = Arc::new(AtomicBool::new(false));
            let is_over = over.clone();
            let computing = thread::spawn(move || {
                let over = move || is_over.load(Ordering::SeqCst);
                compute(Box::new(load), grant(0, None, None, None), jobs, 1, drop, Some(next), over)
            });
            let job = || {
                let (reply, answer) = oneshot::channel();
                assert!(sender.try_send(Job { inputs: Vec::new(), entered: Instant::now(), reply }).is_ok());
                answer
            };
            let answers: Vec<_> = (0..3).map(|_| job()).collect();
            // The first has been handed on, and there is no room for the second.
            (0..2).for_each(|_| runs.recv().unwrap());
            if key_ends {
                over.store(true, Ordering::SeqCst);
            } else {
                drop((answers, sender));
            }
            computing.join().unwrap().unwrap();
            drop(stuck);
        }
    }
}
