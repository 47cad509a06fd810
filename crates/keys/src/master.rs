//! Where the master key comes from: a file, a passphrase, or a command that asks a key management service.

use std::fs::{File, metadata};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::KeysError;
use crate::random::Randomness;
use crate::secret::MasterKey;

/// How long a command may take to give the key.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it has ended.
const GLANCE: Duration = Duration::from_millis(20);
/// More is neither a key nor a passphrase.
const MAX_BYTES: usize = 4096;

/// Shortest passphrase.
pub const MIN_PASSPHRASE: usize = 12;

/// Where to get the master key from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MasterSource {
    /// A file of mode 0600 with 32 bytes, or these in hexadecimal or base64.
    File(PathBuf),
    /// A file of mode 0600 with a passphrase, of which the key is made by Argon2id.
    PassphraseFile(PathBuf),
    /// A program and its arguments. What it writes to its standard output is the key, in one of the forms of a file.
    Command(Vec<String>),
}

/// How a passphrase becomes a key: kept in the clear, next to the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stretching {
    salt: [u8; 16],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Stretching {
    /// Argon2id as RFC 9106 recommends it where memory is scarce: 64 MiB, three passes.
    pub(crate) fn new(random: &dyn Randomness) -> Result<Self, KeysError> {
        let mut salt = [0; 16];
        random.fill(&mut salt)?;
        Ok(Self { salt, memory_kib: 64 << 10, passes: 3, lanes: 4 })
    }

    fn stretch(&self, passphrase: &[u8]) -> Result<MasterKey, KeysError> {
        let fail = |e: argon2::Error| KeysError::Master(format!("Argon2: {e}"));
        // They come from a file that anyone may have written.
        if self.memory_kib > 1 << 20 || self.passes > 64 || self.lanes > 64 {
            let problem = "the store asks for more than 1 GiB or 64 passes of Argon2: it has been changed";
            return Err(KeysError::Master(problem.to_owned()));
        }
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(MasterKey::LEN)).map_err(fail)?;
        let mut key = Zeroizing::new([0; MasterKey::LEN]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, &self.salt, &mut *key)
            .map_err(fail)?;
        MasterKey::from_slice(&*key).ok_or(KeysError::Internal("a key has 32 bytes"))
    }
}

impl MasterSource {
    /// The source with its path relative to `dir`.
    pub fn below(self, dir: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(dir.join(path)),
            Self::PassphraseFile(path) => Self::PassphraseFile(dir.join(path)),
            Self::Command(words) => Self::Command(words),
        }
    }

    pub(crate) fn is_passphrase(&self) -> bool {
        matches!(self, Self::PassphraseFile(_))
    }

    /// The key itself.
    pub(crate) fn load(&self, stretching: Option<&Stretching>) -> Result<MasterKey, KeysError> {
        match (self, stretching) {
            (Self::PassphraseFile(path), Some(stretching)) => {
                let text = read_private(path)?;
                let passphrase = text.trim_ascii_end();
                if passphrase.len() < MIN_PASSPHRASE {
                    let problem = format!(
                        "expected a passphrase of at least {MIN_PASSPHRASE} bytes, found {}",
                        passphrase.len()
                    );
                    return Err(KeysError::file(path, problem));
                }
                stretching.stretch(passphrase)
            }
            (Self::PassphraseFile(_), None) => {
                let problem = "this store was made with a key file or a command, not with a passphrase";
                Err(KeysError::Master(problem.to_owned()))
            }
            (_, Some(_)) => {
                let problem = "this store was made with a passphrase; give the file that holds it";
                Err(KeysError::Master(problem.to_owned()))
            }
            (Self::File(path), None) => parse(&read_private(path)?).map_err(|p| KeysError::file(path, p)),
            (Self::Command(words), None) => parse(&output(words, PATIENCE)?)
                .map_err(|p| KeysError::Master(format!("{}: {p}", words.join(" ")))),
        }
    }
}

/// 32 bytes, or their hexadecimal or base64 form on a line.
fn parse(bytes: &[u8]) -> Result<MasterKey, String> {
    if let Some(key) = MasterKey::from_slice(bytes) {
        return Ok(key);
    }
    let text = bytes.trim_ascii();
    let decoded = match text.len() {
        64 => HEXLOWER_PERMISSIVE.decode(text).ok(),
        44 => BASE64.decode(text).ok(),
        _ => None,
    };
    decoded.map(Zeroizing::new).and_then(|decoded| MasterKey::from_slice(&decoded)).ok_or_else(|| {
        format!(
            "expected 32 bytes, 64 hexadecimal digits or 44 characters of base64, found {} bytes",
            bytes.len()
        )
    })
}

fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let advice =
        "the store's master key, without which nothing opens it, or its passphrase: put your copy there";
    let mode = metadata(path).map_err(KeysError::missing(path, advice))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let problem = format!(
            "this secret is accessible to other users (mode {mode:o}, expected 600); run: chmod 600 {}",
            path.display()
        );
        return Err(KeysError::file(path, problem));
    }
    bounded(File::open(path).map_err(KeysError::io(path))?)
        .map_err(KeysError::io(path))?
        .ok_or_else(|| KeysError::file(path, format!("expected at most {MAX_BYTES} bytes, found more")))
}

/// All of it, in a vector that does not grow and leave copies; `None` if it is too long.
fn bounded(from: impl Read) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= MAX_BYTES).then_some(bytes))
}

/// Runs a command, without a shell, and gives what it writes to its standard output.
fn output(words: &[String], patience: Duration) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let fail = |problem: String| KeysError::Master(format!("{}: {problem}", words.join(" ")));
    let (program, arguments) =
        words.split_first().ok_or_else(|| KeysError::Master("the command is empty".to_owned()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| fail(format!("cannot run it: {e}")))?;
    let stdout = child.stdout.take().ok_or(KeysError::Internal("a pipe that was asked for"))?;
    let started = Instant::now();
    let (sender, receiver) = channel();
    // If it outlives the wait, what it has read is wiped when nobody takes it.
    std::thread::spawn(move || sender.send(bounded(stdout)));
    let read = receiver.recv_timeout(patience);
    // One that has said all may go on, with its output closed.
    let mut status = None;
    while read.is_ok() && status.is_none() && started.elapsed() < patience {
        status = child.try_wait().map_err(|e| fail(e.to_string()))?;
        if status.is_none() {
            std::thread::sleep(GLANCE);
        }
    }
    let ended = status.is_some();
    if !ended {
        let _ = child.kill();
    }
    let status = status.map_or_else(|| child.wait(), Ok).map_err(|e| fail(e.to_string()))?;
    let read = match read {
        Ok(read) => read.map_err(|e| fail(format!("cannot read from it: {e}")))?,
        Err(RecvTimeoutError::Timeout) => return Err(fail(format!("gave no key within {patience:?}"))),
        Err(RecvTimeoutError::Disconnected) => {
            return Err(KeysError::Internal("the reader of a pipe has gone"));
        }
    };
    if !ended {
        return Err(fail(format!("did not end within {patience:?}")));
    }
    let too_long =
        || fail(format!("expected a key on its standard output, found more than {MAX_BYTES} bytes"));
    let read = read.ok_or_else(too_long)?;
    if !status.success() {
        return Err(fail(format!("ended with {status}; what it says is above")));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use super::*;
    use crate::random::SeededRandomness;

    #[test]
    fn a_key_in_every_form() {
        let bytes: [u8; 32] = std::array::from_fn(|i| 200 + i as u8);
        let hexadecimal: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        for form in [bytes.to_vec(), (hexadecimal + "\n").into_bytes(), BASE64.encode(&bytes).into_bytes()] {
            assert!(parse(&form).is_ok_and(|key| *key.expose() == bytes));
        }
        for wrong in [&b""[..], b"short", &[b'a'; 63], &[b'a'; 65], &[b'g'; 64], &[0xff; 44]] {
            assert!(parse(wrong).is_err());
        }
    }

    #[test]
    fn files_of_others_and_weak_passphrases_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write(&path, "a passphrase of some length\n").unwrap();
        set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let stretching =
            Stretching { memory_kib: 64, passes: 1, ..Stretching::new(&SeededRandomness::new(2)).unwrap() };
        let source = MasterSource::PassphraseFile(path.clone());
        let load = || source.load(Some(&stretching));
        assert!(load().err().unwrap().to_string().contains("chmod 600"));
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let key = load().unwrap();
        assert!(key.expose() == load().unwrap().expose(), "the same passphrase and salt");
        let salted = Stretching { salt: [9; 16], ..stretching.clone() };
        assert!(key.expose() != source.load(Some(&salted)).unwrap().expose());
        let greedy = Stretching { memory_kib: u32::MAX, ..stretching.clone() };
        assert!(source.load(Some(&greedy)).err().unwrap().to_string().contains("1 GiB"));
        write(&path, "short").unwrap();
        assert!(load().err().unwrap().to_string().contains("at least 12"));
        assert!(source.load(None).is_err());
    }

    #[test]
    fn commands_give_keys_or_reasons() {
        let run = |words: &[&str]| {
            MasterSource::Command(words.iter().map(|w| (*w).to_owned()).collect()).load(None)
        };
        let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        assert!(run(&["echo", key]).is_ok_and(|k| k.expose()[..4] == [0, 0x11, 0x22, 0x33]));
        assert!(run(&["sh", "-c", "exit 3"]).err().unwrap().to_string().contains("exit status: 3"));
        assert!(run(&["/nonexistent/kms"]).err().unwrap().to_string().contains("cannot run it"));
        assert!(run(&[]).is_err());
        // One that closes its output and stays, and one that says nothing.
        for command in ["echo 00; exec sleep 600 >&-", "exec sleep 600"] {
            let words = ["sh", "-c", command].map(str::to_owned);
            let error = output(&words, Duration::from_millis(300)).err().unwrap().to_string();
            assert!(error.contains("within 300ms"), "{error}");
        }
        let error = run(&["head", "-c", "5000", "/dev/zero"]).err().unwrap().to_string();
        assert!(error.contains("more than 4096"), "{error}");
    }
}
