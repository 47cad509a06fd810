//! What a worker is told to run: checked as far as possible before it listens, or asks for a key.

use std::path::{Path, PathBuf};

use privet::enclave::{
    EnclaveError, PartProgram, Pinned, Program, SealedProgram, SignedStages, StagedProgram, Terms,
    check_sealed, stages_text,
};
use privet::seal::Release;

use crate::args::enclave::WorkerArgs;
use crate::exit::{Code, Failure};
use crate::given;
use crate::held::Hold;
use crate::seal::version;

/// What is sealed.
pub(crate) enum Files {
    Whole(PathBuf),
    /// With the stages that are held, or all of them one by one.
    Stages(PathBuf, Option<(usize, usize)>),
}

impl Files {
    pub(crate) fn of(args: &WorkerArgs) -> anyhow::Result<Self> {
        match (&args.sealed, &args.stages) {
            (Some(path), _) => Ok(Self::Whole(path.clone())),
            (None, Some(dir)) => Ok(Self::Stages(dir.clone(), args.stage)),
            (None, None) => Err(Failure::error(Code::Usage, "expected --sealed FILE or --stages DIR")),
        }
    }

    /// Refuses what such a worker would not open, and neighbours that it needs or does not have.
    pub(crate) fn check(&self, args: &WorkerArgs, pinned: &Pinned) -> anyhow::Result<()> {
        match self {
            Self::Whole(path) => sealed(path, pinned),
            Self::Stages(dir, range) => {
                let stages = signed_stages(dir, pinned)?;
                let count = stages.index().stages.len();
                let (first, last) = range.unwrap_or((1, count));
                if range.is_some() {
                    neighbours(args, (first, last), count)?;
                }
                (first..=last).try_for_each(|number| given::by("--stages", stages.check_stage(number)))
            }
        }
    }

    /// Opens them, and holds the process to its memory where it is to be held.
    pub(crate) fn open(
        &self,
        terms: Terms<'_>,
        hold: Option<Hold>,
    ) -> Result<Box<dyn Program>, EnclaveError> {
        Ok(match self {
            Self::Whole(path) => Box::new(SealedProgram::open(path, terms)?),
            Self::Stages(dir, None) => {
                let program = StagedProgram::open(dir, terms)?;
                hold.map(|hold| hold.apply(&program, program.info())).transpose()?;
                Box::new(program)
            }
            Self::Stages(dir, Some(range)) => Box::new(PartProgram::open(dir, *range, terms)?),
        })
    }
}

/// The sealed model that `--sealed` names.
pub(crate) fn sealed(path: &Path, pinned: &Pinned) -> anyhow::Result<()> {
    given::file("--sealed", path, given::SEALED)?;
    given::by("--sealed", check_sealed(path, pinned))
}

/// The index of the stages that `--stages` names.
pub(crate) fn signed_stages(dir: &Path, pinned: &Pinned) -> anyhow::Result<SignedStages> {
    given::directory("--stages", dir, given::STAGES)?;
    given::by("--stages", SignedStages::open(dir, pinned))
}

/// The release file that `--release` names.
pub(crate) fn release(path: &Path) -> anyhow::Result<Release> {
    given::file("--release", path, given::RELEASE)?;
    given::by("--release", Release::read(path))
}

/// What this worker accepts by itself.
pub(crate) fn pinned(args: &WorkerArgs) -> anyhow::Result<Pinned> {
    let (min_version, digest) = (version(args.min_version), args.model_digest);
    if let Some(path) = &args.release {
        return Ok(Pinned::of_release(&release(path)?, min_version, digest));
    }
    let (Some(verifying_key), Some(key_id)) = (args.verifying_key, args.key_id.clone()) else {
        return Err(Failure::error(Code::Usage, "expected --release, or --verifying-key and --key-id"));
    };
    Ok(Pinned { verifying_key, model_id: None, key_id, key_version: args.key_version, min_version, digest })
}

/// Whether arguments name the workers before and behind some stages, where there have to be any, and only there.
fn neighbours(args: &WorkerArgs, (first, last): (usize, usize), count: usize) -> anyhow::Result<()> {
    let usage = |text: String| Err(Failure::error(Code::Usage, text));
    let these = stages_text(first, last);
    if last > count {
        return usage(format!("--stage: expected some of 1 to {count}, which the index has; found {these}"));
    }
    if first > 1 && args.clients.is_none() {
        return usage(format!(
            "--stage: {these} of {count} takes tensors from the worker before, and from nobody else; --clients \
             policy.toml says which worker that is: {}",
            given::POLICY
        ));
    }
    match (last < count, &args.next) {
        (true, None) => usage(format!(
            "--stage: {these} of {count} gives tensors to the worker behind; --next HOST:PORT says where it is, and \
             --next-policy policy.toml which one it may be: {}",
            given::POLICY
        )),
        (false, Some(next)) => usage(format!(
            "--next {next}: {these} of {count} is the end of the model, and no worker is behind; leave --next and \
             --next-policy out"
        )),
        _ => Ok(()),
    }
}
