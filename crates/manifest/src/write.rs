//! Writes a manifest.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::elf::loaded_files;
use crate::error::io;
use crate::size::{self, Sizes, enclave_size};
use crate::{ManifestError, elf::Loaded};

/// Where the program is inside.
const PROGRAM: &str = "/privet";
/// Where loader and libraries are inside.
const LIBRARIES: &str = "/lib";
/// Gramine's own threads: main, interprocess communication, timers, pipes.
const GRAMINE_THREADS: u32 = 4;
/// Of the first thread; others choose their own.
const STACK: u64 = 8 << 20;

/// A file that the program may read, and nothing else in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedFile {
    /// On the host.
    pub host: PathBuf,
    /// Inside, absolute.
    pub inside: String,
}

/// What a manifest is made of.
#[derive(Debug, Clone, Default)]
pub struct ManifestOptions {
    /// What the manifest is for, in one line.
    pub title: String,
    /// The program on the host.
    pub program: PathBuf,
    /// Where loader and libraries are searched first.
    pub library_paths: Vec<PathBuf>,
    /// Gramine's directory with `libsysdb.so`; its signing tool fills that in otherwise.
    pub gramine: Option<PathBuf>,
    /// All arguments, the program's name first.
    pub argv: Vec<String>,
    /// Environment besides what is always set.
    pub environment: Vec<(String, String)>,
    /// What it reads.
    pub files: Vec<TrustedFile>,
    /// A directory on the host for what it writes, and where that is inside: encrypted under a key that only enclaves of the
    /// same signer get.
    pub state: Option<(PathBuf, String)>,
    /// Most bytes that it holds of weights, tensors and workspace.
    pub memory: u64,
    /// Its threads.
    pub threads: u32,
    /// Whether it starts other programs.
    pub subprocesses: bool,
    /// Whether names of hosts are looked up.
    pub names: bool,
    /// Whether memory is added while it runs.
    pub edmm: bool,
    /// Product number.
    pub product: u16,
    /// Security version: a number that grows with every repair.
    pub security_version: u16,
}

/// A manifest, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// TOML.
    pub text: String,
    /// Bytes of the enclave.
    pub enclave_size: u64,
    /// Threads, Gramine's included.
    pub threads: u32,
    /// Number of trusted files.
    pub files: usize,
    /// Whether the program is linked dynamically.
    pub dynamic: bool,
}

/// Writes a manifest. All files are read, for their hashes.
///
/// # Errors
/// Files that cannot be read, a program that Gramine cannot run, paths that no manifest can say or that are given twice.
pub fn manifest(options: &ManifestOptions) -> Result<Written, ManifestError> {
    let program = canonical(&options.program)?;
    let libraries = loaded_files(&program, &options.library_paths)?;
    let mut trusted = Vec::new();
    trusted.push(Trusted::read(&program, PROGRAM.to_owned())?);
    for Loaded { name, path } in &libraries {
        trusted.push(Trusted::read(path, format!("{LIBRARIES}/{name}"))?);
    }
    let code = trusted.iter().map(|t| t.bytes).sum();
    for file in &options.files {
        trusted.push(Trusted::read(&canonical(&file.host)?, file.inside.clone())?);
    }
    trusted.sort_by(|a, b| a.inside.cmp(&b.inside));
    if let Some(twice) = trusted.windows(2).find(|pair| pair[0].inside == pair[1].inside) {
        return Err(ManifestError::Options(format!(
            "{} and {} would both be {} inside; give one another place",
            twice[0].host, twice[1].host, twice[0].inside
        )));
    }
    let threads = options.threads + GRAMINE_THREADS;
    let sizes =
        Sizes { memory: options.memory, code, trusted: trusted.iter().map(|t| t.bytes).sum(), threads };
    let enclave_size = enclave_size(&sizes);
    let text = text(options, &trusted, !libraries.is_empty(), enclave_size, threads)?;
    Ok(Written { text, enclave_size, threads, files: trusted.len(), dynamic: !libraries.is_empty() })
}

fn text(
    options: &ManifestOptions,
    trusted: &[Trusted],
    dynamic: bool,
    enclave_size: u64,
    threads: u32,
) -> Result<String, ManifestError> {
    let mut to = String::new();
    let mut line = |text: String| {
        to.push_str(&text);
        to.push('\n');
    };
    line(format!("# {}", one_line(&options.title)));
    line("# Written by privet manifest for Gramine 1.9. The measurement covers every line: do not edit, write it anew.".into());
    line(String::new());
    if let Some(gramine) = &options.gramine {
        let libos = Trusted::read(&canonical(&gramine.join("libsysdb.so"))?, String::new())?;
        line(format!("loader.entrypoint.uri = {}", quoted(&format!("file:{}", libos.host))));
        line(format!("loader.entrypoint.sha256 = \"{}\"", libos.sha256));
    }
    line(format!("libos.entrypoint = \"{PROGRAM}\""));
    line("loader.log_level = \"error\"".into());
    let argv: Vec<String> = options.argv.iter().map(|a| quoted(a)).collect();
    line(format!("loader.argv = [{}]", argv.join(", ")));
    let mut environment = options.environment.clone();
    if dynamic {
        environment.push(("LD_LIBRARY_PATH".into(), LIBRARIES.into()));
    }
    // One heap that gives freed memory back at once: the size of the enclave counts on it.
    for (name, value) in
        [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "65536")]
    {
        environment.push((name.into(), value.into()));
    }
    environment.sort();
    for (name, value) in environment {
        let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let name = if is_bare { name } else { quoted(&name) };
        line(format!("loader.env.{name} = {}", quoted(&value)));
    }
    line(String::new());
    line("# Nothing of the host's file system but these files.".into());
    line("fs.root = { type = \"tmpfs\" }".into());
    line("fs.mounts = [".into());
    line("  { type = \"tmpfs\", path = \"/tmp\" },".into());
    if let Some((host, inside)) = &options.state {
        let host = canonical(host)?;
        // The key of MRENCLAVE is the program's own to use: one key must not serve both.
        line(format!(
            "  {{ type = \"encrypted\", path = {}, uri = {}, key_name = \"_sgx_mrsigner\" }},",
            quoted(inside),
            quoted(&format!("file:{}", utf8(&host)?))
        ));
    }
    for file in trusted {
        line(format!(
            "  {{ path = {}, uri = {} }},",
            quoted(&file.inside),
            quoted(&format!("file:{}", file.host))
        ));
    }
    line("]".into());
    line(String::new());
    line(format!("sys.disallow_subprocesses = {}", !options.subprocesses));
    if options.names {
        line("sys.enable_extra_runtime_domain_names_conf = true".into());
    }
    line(format!("sys.stack.size = \"{}\"", size::shown(STACK)));
    line(String::new());
    line("sgx.debug = false".into());
    line("sgx.remote_attestation = \"dcap\"".into());
    line(format!("sgx.edmm_enable = {}", options.edmm));
    if options.edmm {
        // Pages come by faults, which are handled only if the CPU says where they were.
        line("sgx.use_exinfo = true".into());
    }
    line(format!("sgx.enclave_size = \"{}\"", size::shown(enclave_size)));
    line(format!("sgx.max_threads = {threads}"));
    line(format!("sgx.isvprodid = {}", options.product));
    line(format!("sgx.isvsvn = {}", options.security_version));
    line("sgx.file_check_policy = \"strict\"".into());
    line("sgx.trusted_files = [".into());
    for file in trusted {
        line(format!(
            "  {{ uri = {}, sha256 = \"{}\" }},",
            quoted(&format!("file:{}", file.host)),
            file.sha256
        ));
    }
    line("]".into());
    Ok(to)
}

/// A file as a manifest names it.
struct Trusted {
    host: String,
    inside: String,
    sha256: String,
    bytes: u64,
}

impl Trusted {
    fn read(path: &Path, inside: String) -> Result<Self, ManifestError> {
        let host = utf8(path)?;
        if !inside.is_empty() && (!inside.starts_with('/') || inside.ends_with('/') || inside.contains("//"))
        {
            let text =
                format!("{inside}: expected an absolute path of a file inside, such as /model/m.sealed");
            return Err(ManifestError::Options(text));
        }
        let mut file = File::open(path).map_err(|e| io(path, e))?;
        let mut hash = Sha256::new();
        let mut block = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            match file.read(&mut block).map_err(|e| io(path, e))? {
                0 => break,
                len => {
                    hash.update(&block[..len]);
                    bytes += len as u64;
                }
            }
        }
        let sha256 = hash.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Ok(Self { host, inside, sha256, bytes })
    }
}

fn canonical(path: &Path) -> Result<PathBuf, ManifestError> {
    path.canonicalize().map_err(|e| io(path, e))
}

/// A path that TOML and Gramine's templates leave as it is.
fn utf8(path: &Path) -> Result<String, ManifestError> {
    let text = path.to_str().filter(|t| !t.contains("{{") && !t.contains("{%") && !t.contains("{#"));
    text.map(str::to_owned).ok_or_else(|| {
        let text = format!("{}: expected a path in UTF-8 without {{{{, {{% and {{#", path.display());
        ManifestError::Options(text)
    })
}

fn quoted(text: &str) -> String {
    if text.chars().all(|c| !c.is_control() && c != '"' && c != '\\') {
        return format!("\"{text}\"");
    }
    toml::Value::String(text.to_owned()).to_string()
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
