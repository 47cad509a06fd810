//! Data owners of a three-party cluster, who need not be parties: from weights and inputs to shares, from shares to outputs.
//!
//! `privet setup --parties 3` writes a public description of the cluster ([`Cluster`]). With it a model's owner shares its
//! weights ([`share_weights`]), and an input's owner its inputs ([`share_inputs`]): one [file](ShareFile) for each party, which
//! goes to that party and nobody else. What the parties compute stays shared; whoever is given two of their files learns the
//! outputs ([`reveal`]).

mod cluster;
mod file;

use std::path::{Path, PathBuf};

use privet_plan::{Digest, Plan};
use privet_protocols::replicated::{self, PARTIES};

use crate::error::{Error, StoreError};
use crate::files;
use crate::model::{LoadedModel, PLAN_FILE};
use crate::store::fresh_seed;

pub use cluster::{CLUSTER_FILE, Cluster, Member};
pub(crate) use file::write_outputs;
pub use file::{ShareFile, ShareKind, SharingId};

/// File name of a share of the weights in a party's directory.
pub const WEIGHTS_SHARE_FILE: &str = "weights.share";

/// Shares the weights of a model: for each party a directory in `out`, with the public plan and its share.
///
/// # Errors
/// No randomness, or files that cannot be written.
pub fn share_weights(model: &LoadedModel, cluster: &Cluster, out: &Path) -> Result<Vec<PathBuf>, Error> {
    let plan = &model.plan;
    let written = share(plan, ShareKind::Weights, &model.weights.tensors, cluster, out, WEIGHTS_SHARE_FILE)?;
    for path in &written {
        let path = path.with_file_name(PLAN_FILE);
        files::write(&path, &plan.to_bytes(), files::PUBLIC).map_err(StoreError::io(&path))?;
    }
    Ok(written)
}

/// Shares the inputs of one inference, as [`fixed_inputs`](crate::model::fixed_inputs) gives them: for each party a directory
/// in `out`, with its share in `NAME.share`.
///
/// # Errors
/// Inputs that do not fit the plan, no randomness, or files that cannot be written.
pub fn share_inputs(
    plan: &Plan,
    inputs: &[Vec<i64>],
    cluster: &Cluster,
    out: &Path,
    name: &str,
) -> Result<Vec<PathBuf>, Error> {
    privet_protocols::masked::check_inputs(plan, inputs)?;
    if format!("{name}.share") == WEIGHTS_SHARE_FILE {
        return Err(Error::NotReady(format!(
            "{name:?} is the name of the shares of weights; choose another with --name"
        )));
    }
    share(plan, ShareKind::Inputs, inputs, cluster, out, &format!("{name}.share"))
}

fn share(
    plan: &Plan,
    kind: ShareKind,
    tensors: &[Vec<i64>],
    cluster: &Cluster,
    out: &Path,
    file: &str,
) -> Result<Vec<PathBuf>, Error> {
    let seeds = [fresh_seed()?, fresh_seed()?];
    let sharing = SharingId(*fresh_seed()?.expose());
    let paths: Vec<PathBuf> = cluster.parties.iter().map(|party| out.join(&party.name).join(file)).collect();
    for path in &paths {
        let dir = files::directory(path);
        files::private_dir(dir).and_then(|()| files::sweep(dir)).map_err(StoreError::io(path))?;
        if path.symlink_metadata().is_ok() {
            let problem =
                "already exists: shares are never overwritten; choose another --name or --out".to_owned();
            return Err(StoreError::Share { path: path.clone(), problem }.into());
        }
    }
    let rest = |tensor: usize| {
        let [_, _, rest] = replicated::components(&tensors[tensor], tensor, plan.ring, &seeds);
        rest
    };
    for (index, (path, party)) in paths.iter().zip(&cluster.parties).enumerate() {
        let header = file::Header {
            kind,
            plan: plan.digest(),
            sharing,
            party: index as u8,
            recipient: Some(party.fingerprint),
            components: [index, (index + 1) % PARTIES].map(|component| seeds.get(component).cloned()),
        };
        file::write(path, plan, &header, |_, tensor| rest(tensor))?;
    }
    Ok(paths)
}

/// One component of all outputs, and the file that it is from.
type Known<'a> = (&'a PathBuf, Vec<&'a [u64]>);

/// Puts the outputs together from two or three of the parties' shares of them. With three, what two parties hold alike is
/// compared.
///
/// # Errors
/// Files that cannot be read, are no shares of outputs, or do not belong together.
pub fn reveal(plan: &Plan, paths: &[PathBuf]) -> Result<Vec<Vec<i64>>, Error> {
    let shares: Vec<(&PathBuf, ShareFile)> = paths
        .iter()
        .map(|path| Ok((path, ShareFile::read(path, plan, ShareKind::Outputs)?)))
        .collect::<Result<_, Error>>()?;
    let problem = |text: String| Err(Error::NotReady(text));
    let Some(((first_path, first), others)) = shares.split_first().filter(|(_, others)| !others.is_empty())
    else {
        return problem("expected the shares of two or three parties, found fewer".to_owned());
    };
    for (path, other) in others {
        if other.sharing != first.sharing {
            let (a, b) = (first_path.display(), path.display());
            return problem(format!("{a} and {b} are shares of different outputs"));
        }
    }
    let mut components: [Option<Known>; PARTIES] = Default::default();
    for (path, file) in &shares {
        let own: Vec<&[u64]> = file.shares.iter().map(|share| &share.own[..]).collect();
        let next: Vec<&[u64]> = file.shares.iter().map(|share| &share.next[..]).collect();
        for (component, values) in [(file.party, own), ((file.party + 1) % PARTIES, next)] {
            match &components[component] {
                Some((other, known)) if *known != values => {
                    let (a, b) = (other.display(), path.display());
                    return problem(format!(
                        "{a} and {b} contradict each other: one of these parties did not compute what it should have"
                    ));
                }
                Some(_) => {}
                None => components[component] = Some((path, values)),
            }
        }
    }
    let [Some((_, x_0)), Some((_, x_1)), Some((_, x_2))] = &components else {
        return problem("two shares of the same party: one of another party is needed".to_owned());
    };
    let joined = |i: usize| replicated::join([x_0[i], x_1[i], x_2[i]], plan.ring);
    Ok((0..plan.outputs.len()).map(joined).collect())
}

/// The name of the outputs of an inference: all parties derive the same from what they put in.
pub(crate) fn outputs_of(
    weights: SharingId,
    inputs: SharingId,
    session: [u8; 16],
    inference: u64,
) -> SharingId {
    let bytes = [&weights.0[..], &inputs.0, &session, &inference.to_le_bytes()].concat();
    let Digest(digest) = Digest::of("privet outputs", &bytes);
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    SharingId(id)
}
