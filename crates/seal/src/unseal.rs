//! A sealed ONNX file back as it was.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use crate::files::{self, PRIVATE, Stoppable};
use crate::reader::ReadAt;
use crate::{Kind, OpenedModel, SealError, Swap};

/// Small pieces are gathered to writes of this size.
const WRITE_BYTES: usize = 1 << 18;

/// Writes the ONNX file that was sealed, byte for byte, with mode 0600. The file appears when all of it was verified;
/// until then it is unnamed by `out`, and removed if anything fails.
///
/// # Errors
/// If what was sealed is no ONNX file, anything is not what the owner sealed, or the system fails.
pub fn unseal_onnx<S: ReadAt>(model: &OpenedModel<S>, out: &Path) -> Result<u64, SealError> {
    unseal_onnx_until(model, out, &AtomicBool::new(false))
}

/// [`unseal_onnx`], which ends, with nothing left, soon after `stop` is set.
///
/// # Errors
/// As [`unseal_onnx`], and [`SealError::Interrupted`].
pub fn unseal_onnx_until<S: ReadAt>(
    model: &OpenedModel<S>,
    out: &Path,
    stop: &AtomicBool,
) -> Result<u64, SealError> {
    let mut file = files::temporary(out)?;
    let mut target = Stoppable { file: file.as_file_mut(), stop };
    let written = write_onnx(model, &mut target, out);
    if stop.load(Ordering::SeqCst) {
        return Err(SealError::Interrupted);
    }
    let bytes = written?;
    files::publish(file, out, PRIVATE)?;
    Ok(bytes)
}

/// Writes the ONNX file that was sealed to `out`, named `path`.
pub(crate) fn write_onnx<S: ReadAt>(
    model: &OpenedModel<S>,
    out: &mut impl Write,
    path: &Path,
) -> Result<u64, SealError> {
    if model.header().kind != Kind::Onnx {
        let problem = "expected a sealed ONNX file, found the sealed state of a module".to_owned();
        return Err(SealError::Sealed { name: model.name().to_owned(), problem });
    }
    let mut gather = Gather { out, pending: Zeroizing::new(Vec::with_capacity(WRITE_BYTES)), path };
    let (mut graph, mut data) = (model.buffer(Swap::Allowed)?, model.buffer(Swap::Allowed)?);
    let mut next = 1;
    let mut at = 0;
    for chunk in 0..model.chunks(0) {
        let mut rest = model.chunk(0, chunk, &mut graph)?;
        let is_last = chunk + 1 == model.chunks(0);
        loop {
            let due = model.entries().get(next).filter(|e| {
                let distance = e.at - at;
                distance < rest.len() as u64 || distance == rest.len() as u64 && is_last
            });
            let Some(entry) = due else { break };
            let (before, behind) = rest.split_at((entry.at - at) as usize);
            gather.write(before)?;
            (rest, at) = (behind, entry.at);
            for chunk in 0..model.chunks(next) {
                gather.write(model.chunk(next, chunk, &mut data)?)?;
            }
            next += 1;
        }
        gather.write(rest)?;
        at += rest.len() as u64;
    }
    gather.flush()?;
    Ok(model.header().plain_bytes())
}

/// A writer whose buffer is wiped.
struct Gather<'a, W> {
    out: &'a mut W,
    pending: Zeroizing<Vec<u8>>,
    path: &'a Path,
}

impl<W: Write> Gather<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SealError> {
        if self.pending.len() + bytes.len() > WRITE_BYTES {
            self.flush()?;
        }
        if bytes.len() >= WRITE_BYTES {
            return self.out.write_all(bytes).map_err(SealError::write(self.path));
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SealError> {
        self.out.write_all(&self.pending).map_err(SealError::write(self.path))?;
        self.pending.clear();
        Ok(())
    }
}
