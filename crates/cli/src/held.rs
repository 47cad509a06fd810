//! A worker that is held to its memory by the system.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use nix::sys::resource::{Resource, setrlimit};
use privet::enclave::{EnclaveError, ModelInfo, StagedProgram};

use crate::args::enclave::{Held, WorkerArgs};
use crate::show::table;
use crate::stages::{THREAD, tell_allocator};

/// What a worker takes besides weights, tensors and workspace: the program, threads and stacks of connections, evidence.
const WORKER: u64 = 48 << 20;
/// And for every connection: buffers of TLS and of the protocol, besides inputs and outputs.
const CONNECTION: u64 = 128 << 10;

/// Starts this program anew in this process's place, where that was not done yet: freed memory has to go back to the system at once,
/// which the allocator is told by its environment.
pub(crate) fn restart(args: &WorkerArgs) -> anyhow::Result<()> {
    if args.memory.is_none() || args.is_held {
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).arg("--is-held");
    tell_allocator(&mut command, args.threads.into());
    Err(command.exec()).context("cannot start the process that is held to its memory")
}

/// What a worker is held to.
#[derive(Clone, Copy)]
pub(crate) struct Hold {
    held: Held,
    threads: u64,
    connections: u64,
}

impl Hold {
    /// What the arguments say, if they do.
    pub(crate) fn of(args: &WorkerArgs) -> Option<Self> {
        let held = args.memory?;
        Some(Self { held, threads: args.threads.into(), connections: args.sessions.into() })
    }

    /// Holds this process to it, for a program whose weights are still sealed.
    ///
    /// # Errors
    /// If the stages take more than was given, or the system does not hold it.
    pub(crate) fn apply(self, program: &StagedProgram, model: &ModelInfo) -> Result<(), EnclaveError> {
        let room = program.room();
        let budget = match self.held {
            Held::Plan => room,
            Held::Bytes(bytes) if bytes >= room => bytes,
            Held::Bytes(bytes) => {
                let text = format!(
                    "--memory {bytes}: these stages take {room} bytes ({}); expected --memory plan, at least as much, or stages \
                     that `privet split --memory {bytes}` has cut",
                    table::bytes(room)
                );
                return Err(EnclaveError::Model(text));
            }
        };
        let limit = budget + WORKER + THREAD * (self.threads - 1) + self.connections * of_one(model);
        setrlimit(Resource::RLIMIT_DATA, limit, limit)
            .map_err(|_| EnclaveError::Internal("the system does not limit the memory of this process"))
    }
}

/// What a connection takes: inputs as they come, as tensors and in the run; outputs as tensors and as they go.
fn of_one(model: &ModelInfo) -> u64 {
    let bytes = |specs: &[privet::enclave::TensorSpec]| specs.iter().map(|spec| spec.bytes()).sum::<u64>();
    CONNECTION + 2 * (bytes(&model.inputs) + bytes(&model.outputs))
}
