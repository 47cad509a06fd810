//! The thread that computes: one inference after the other, with a bounded queue before it.
//!
//! It alone holds the program, and with it the weights. However a worker ends, it is told to give up, woken, and waited for; then the
//! program was dropped, which wipes what it held. That takes no longer than the operator or the chunk under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use privet_graph::Tensor;
use privet_keys::{Grant, Place};
use tokio::sync::{mpsc, oneshot};

use crate::error::EnclaveError;
use crate::next::Forward;
use crate::stages::Crossing;
use crate::wire::ModelInfo;

/// How often it is looked whether what asks the next worker is free.
const GLANCE: Duration = Duration::from_millis(2);

/// Told to a program that is to give up, while it is loaded or runs: it is looked at between operators, and between chunks of
/// weights that are decrypted.
pub type Halt = Arc<AtomicBool>;

/// A model that is ready to run. It stays on the thread that made it.
pub trait Program {
    /// What it is, and what it takes and gives.
    fn info(&self) -> &ModelInfo;

    /// Seconds that all threads together have spent with verifying and decrypting weights so far.
    fn decrypt_seconds(&self) -> f64 {
        0.0
    }

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
    /// Weights that cannot be read; inputs that the model cannot use; it was told to give up.
    fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EnclaveError>;
}

/// What the thread is given.
pub(crate) enum Task {
    Infer(Job),
    /// Wakes it up, to see that it is to end.
    End,
}

/// Inputs, and where their outputs go.
pub(crate) struct Job {
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) entered: Instant,
    /// In the queue; given back when the job's turn comes.
    pub(crate) place: Place,
    pub(crate) reply: oneshot::Sender<Result<Done, EnclaveError>>,
}

/// What there is to know of a program on its thread.
pub(crate) struct Loaded {
    pub(crate) info: ModelInfo,
    pub(crate) entrance: Option<Arc<Crossing>>,
    pub(crate) exit: Option<Arc<Crossing>>,
    /// Verifying and decrypting, all threads together.
    pub(crate) decrypted: Duration,
}

/// Outputs, and how long they took.
pub(crate) struct Done {
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) took: Took,
}

/// How long an inference took.
#[derive(Clone, Copy)]
pub(crate) struct Took {
    pub(crate) queued: Duration,
    pub(crate) computed: Duration,
    /// Verifying and decrypting meanwhile, all threads together.
    pub(crate) decrypted: Duration,
}

/// Makes a program on the thread that will run it.
pub(crate) type Load = dyn FnOnce(&Grant, &Halt) -> Result<Box<dyn Program>, EnclaveError> + Send;

/// The thread, from outside. Dropping it ends the thread, and waits for it.
pub(crate) struct Engine {
    halt: Halt,
    tasks: mpsc::Sender<Task>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread, which loads the program, says what it is, and computes until it is ended, or `is_over` says so.
    ///
    /// # Errors
    /// If there are no threads.
    pub(crate) fn start(
        load: Box<Load>,
        grant: Grant,
        (tasks, queue): (mpsc::Sender<Task>, mpsc::Receiver<Task>),
        threads: usize,
        next: Option<SyncSender<Forward>>,
        is_over: impl Fn() -> bool + Send + 'static,
    ) -> Result<(Self, Receiver<Result<Loaded, EnclaveError>>), EnclaveError> {
        let failed = EnclaveError::Internal("the operating system gave no threads");
        let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(threads).build() else {
            return Err(failed);
        };
        let halt = Halt::default();
        let halted = halt.clone();
        let (sender, loaded) = sync_channel(1);
        // On a thread of the pool, so that products take the pool's threads and no others.
        let work = move || {
            pool.install(move || {
                let is_over = || halted.load(Ordering::SeqCst) || is_over();
                compute(load, grant, queue, |made| drop(sender.send(made)), next, &halted, is_over);
            });
        };
        let thread = thread::Builder::new().name("privet-compute".to_owned()).spawn(work);
        let Ok(thread) = thread else { return Err(failed) };
        Ok((Self { halt, tasks, thread: Some(thread) }, loaded))
    }

    /// Whether the thread has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.halt.store(true, Ordering::SeqCst);
        // Where the queue is full, what is in it wakes the thread up.
        let _ = self.tasks.try_send(Task::End);
        if let Some(thread) = self.thread.take() {
            // If it panicked, its program was dropped all the same.
            let _ = thread.join();
        }
    }
}

fn compute(
    load: Box<Load>,
    grant: Grant,
    mut queue: mpsc::Receiver<Task>,
    loaded: impl FnOnce(Result<Loaded, EnclaveError>),
    next: Option<SyncSender<Forward>>,
    halt: &Halt,
    is_over: impl Fn() -> bool,
) {
    let made = load(&grant, halt);
    drop(grant);
    let mut program = match made {
        Ok(program) => program,
        Err(error) => return loaded(Err(error)),
    };
    let (info, entrance, exit) = (program.info().clone(), program.entrance(), program.exit());
    let mut opened = program.decrypt_seconds();
    loaded(Ok(Loaded { info, entrance, exit, decrypted: Duration::from_secs_f64(opened) }));
    while let Some(Task::Infer(Job { inputs, entered, place, reply })) = queue.blocking_recv() {
        drop(place);
        if is_over() {
            break;
        }
        // Its client has gone.
        if reply.is_closed() {
            continue;
        }
        let began = Instant::now();
        let outputs = program.run(inputs);
        let (queued, computed) = (began.duration_since(entered), began.elapsed());
        let decrypted = Duration::from_secs_f64((program.decrypt_seconds() - opened).max(0.0));
        opened = program.decrypt_seconds();
        let took = Took { queued, computed, decrypted };
        // Nobody waits where the client has gone.
        match (outputs, &next) {
            (Ok(tensors), Some(next)) => hand_on(next, Forward { tensors, took, reply }, &is_over),
            (outputs, _) => drop(reply.send(outputs.map(|outputs| Done { outputs, took }))),
        }
    }
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
    use privet_keys::Crowd;
    use privet_seal::{ModelId, ModelVersion, VerifyingKey};

    use super::*;
    use crate::tenure::tests::grant;

    /// Gives nothing, and says so, and when it is dropped.
    struct Idle(ModelInfo, SyncSender<&'static str>);

    impl Program for Idle {
        fn info(&self) -> &ModelInfo {
            &self.0
        }

        fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EnclaveError> {
            let _ = self.1.send("ran");
            Ok(inputs)
        }
    }

    impl Drop for Idle {
        fn drop(&mut self) {
            let _ = self.1.send("wiped");
        }
    }

    fn idle(says: SyncSender<&'static str>) -> Idle {
        let info = ModelInfo {
            verifying_key: VerifyingKey::from_bytes([1; 32]),
            id: ModelId::from_bytes([7; 16]),
            version: ModelVersion::FIRST,
            digest: "ab".repeat(32).parse().unwrap(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            endings: Vec::new(),
        };
        Idle(info, says)
    }

    #[test]
    fn a_stuck_worker_behind_does_not_keep_the_program() {
        // The worker ends, or its key does, or clients go.
        for how in ["ends", "key ends", "clients go"] {
            let (ran, runs) = sync_channel(8);
            let load = Box::new(move |_: &Grant, _: &Halt| Ok(Box::new(idle(ran)) as Box<dyn Program>));
            let (tasks, queue) = mpsc::channel(8);
            // Nothing ever takes from it.
            let (next, stuck) = sync_channel(1);
            let over = Arc::new(AtomicBool::new(false));
            let is_over = over.clone();
            let over_now = move || is_over.load(Ordering::SeqCst);
            let grant = grant(0, None, None, None);
            let started = Engine::start(load, grant, (tasks.clone(), queue), 1, Some(next), over_now);
            let (engine, loaded) = started.ok().unwrap();
            assert!(loaded.recv().unwrap().is_ok());
            let crowd = Arc::new(Crowd::default());
            let job = || {
                let (reply, answer) = oneshot::channel();
                let place = crowd.enter([127, 0, 0, 1].into(), 8).unwrap();
                let job = Job { inputs: Vec::new(), entered: Instant::now(), place, reply };
                assert!(tasks.try_send(Task::Infer(job)).is_ok());
                answer
            };
            let answers: Vec<_> = (0..3).map(|_| job()).collect();
            // The first has been handed on, and there is no room for the second.
            (0..2).for_each(|_| assert_eq!(runs.recv().unwrap(), "ran"));
            match how {
                "ends" => drop(engine),
                "key ends" => over.store(true, Ordering::SeqCst),
                _ => {
                    drop(answers);
                    let _later = job();
                    assert_eq!(runs.recv().unwrap(), "ran");
                    drop(engine);
                }
            }
            assert_eq!(runs.recv().unwrap(), "wiped");
            drop(stuck);
        }
    }

    #[test]
    fn a_program_that_is_being_loaded_is_told_to_give_up() {
        let (says, said) = sync_channel(8);
        let load = Box::new(move |_: &Grant, halt: &Halt| {
            let half = idle(says.clone());
            let _ = says.send("loading");
            while !halt.load(Ordering::SeqCst) {
                thread::sleep(GLANCE);
            }
            drop(half);
            Err(EnclaveError::Internal("given up"))
        });
        let queue = mpsc::channel(1);
        let (engine, loaded) =
            Engine::start(load, grant(0, None, None, None), queue, 1, None, || false).ok().unwrap();
        assert_eq!(said.recv().unwrap(), "loading");
        drop(engine);
        assert_eq!(said.recv().unwrap(), "wiped");
        assert!(loaded.recv().unwrap().is_err());
    }
}
