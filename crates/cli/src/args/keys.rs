//! Arguments of `keyserver` and `keycache`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use privet::keys::Address;
use privet::keys::audit::Anchor;
use privet::seal::{KeyId, KeyVersion};

pub(crate) const KEYSERVER_HELP: &str = "\
Example, from a new model to a key in a worker:
  privet key new --id resnet --out owner                          # keys of the model's owner
  privet keyserver init --dir keys --listen 0.0.0.0:7300 --name keys.example
  privet keyserver key add --dir keys --key owner
  privet keyserver policy check resnet.toml && privet keyserver policy set --dir keys resnet.toml
  privet keyserver serve --dir keys                               # stop it with Ctrl-C
  privet keyserver fetch keys.example:7300 --key resnet --server-certificate tls.crt   # on a worker

Keys and policies can be changed while the server runs. docs/keys.md has policies, key caches, and what
each party can do.";

pub(crate) const KEYCACHE_HELP: &str = "\
Examples:
  privet keycache init --dir cache --server keys.example:7300 --server-certificate tls.crt
  cp resnet.toml cache/policies/                                  # which keys, for which workers
  privet keycache serve --dir cache                               # in an enclave
  privet keyserver fetch unix:cache/cache.sock --key resnet       # on a worker of the same host

The policy's [lease] at the server has to accept this cache. Leased keys are served until their leases
end, also without the server and after a restart.";

#[derive(Debug, Args)]
pub(crate) struct KeyserverArgs {
    #[command(subcommand)]
    pub(crate) command: KeyserverCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyserverCommand {
    /// Make a server's directory: configuration, store, TLS key and certificate, master key.
    Init(InitArgs),
    /// Release keys to those who prove what they run.
    Serve(ServeArgs),
    /// Add, list, rotate and revoke keys.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Check and set who may have a key.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Check and show what has happened.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Get a key as a worker does, and say which it is; the key itself is not shown.
    #[command(disable_version_flag = true)]
    Fetch(FetchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Directory of the server, which is made.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Where to listen.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7300", value_parser = super::common::address)]
    pub(crate) listen: String,
    /// Host name or IP address for the certificate; may be repeated.
    #[arg(long, value_name = "HOST", default_values = ["localhost", "127.0.0.1"])]
    pub(crate) name: Vec<String>,
    /// File of the master key (32 bytes, or hexadecimal, or base64), mode 0600 [default: a new one in the directory].
    #[arg(long, value_name = "FILE", group = "master")]
    pub(crate) master_key_file: Option<PathBuf>,
    /// File of a passphrase, mode 0600, of which the master key is made.
    #[arg(long, value_name = "FILE", group = "master")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Command that writes the master key to its standard output, such as a client of a key management service. It is split
    /// like a shell does, and run without one.
    #[arg(long, value_name = "COMMAND", group = "master")]
    pub(crate) master_command: Option<String>,
}

/// Where a server's directory is.
#[derive(Debug, Args)]
pub(crate) struct DirArgs {
    /// Directory of the server.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) place: DirArgs,
    /// Listen here instead of where the configuration says.
    #[arg(long, value_name = "HOST:PORT", value_parser = super::common::address)]
    pub(crate) listen: Option<String>,
    /// Prove in the TLS handshake what this server runs, instead of using tls.key and tls.crt.
    #[arg(long)]
    pub(crate) ra_tls: bool,
    /// With --ra-tls: accept connections only from those whom this attestation policy accepts.
    #[arg(long, value_name = "policy.toml", requires = "ra_tls")]
    pub(crate) clients: Option<PathBuf>,
    /// Requests that one address may send a minute.
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
    #[command(flatten)]
    pub(crate) attestation: AttestationArgs,
}

/// How evidence is verified, and made.
#[derive(Debug, Args)]
pub(crate) struct AttestationArgs {
    /// TCB information, QE identity and revocation lists of Intel, in a JSON file; it goes before what comes with evidence.
    #[arg(long, value_name = "FILE")]
    pub(crate) collateral: Option<PathBuf>,
    /// Make and accept development evidence, which proves nothing. Only in builds with the feature
    /// sample-attestation-insecure.
    #[arg(long)]
    pub(crate) allow_sample_insecure: bool,
    /// Exit when the process of this id, the parent, has gone.
    #[arg(long, hide = true, value_name = "PID")]
    pub(crate) exit_with_parent: Option<i32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Add an owner's content key under its id.
    Add(AddArgs),
    /// List keys, without the keys.
    List(ListArgs),
    /// Make the next version of a key, and add it.
    Rotate(RotateArgs),
    /// Never release a version of a key again, and remove it from the store.
    #[command(disable_version_flag = true)]
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    pub(crate) place: DirArgs,
    /// The owner's directory, made by privet key new.
    #[arg(long, value_name = "DIR")]
    pub(crate) key: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) place: DirArgs,
    /// A line of JSON for each key on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    pub(crate) place: DirArgs,
    /// The owner's directory with the newest version.
    #[arg(long, value_name = "DIR")]
    pub(crate) key: PathBuf,
    /// Directory for the next version: a new content key, and the same signing key.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    pub(crate) place: DirArgs,
    /// Which key.
    #[arg(value_name = "ID")]
    pub(crate) id: KeyId,
    /// Which version [default: all].
    #[arg(long, value_name = "N", value_parser = version)]
    pub(crate) version: Option<KeyVersion>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a policy, and name what is weak about it. Exits with 3 if it cannot be used.
    Check {
        /// The policy.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Set the policy of the key that it names.
    Set {
        #[command(flatten)]
        place: DirArgs,
        /// The policy.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check the whole log, and print its newest entry, which is worth noting elsewhere.
    Verify {
        #[command(flatten)]
        place: DirArgs,
        /// An entry that was noted elsewhere, which the log has to contain.
        #[arg(long, value_name = "NUMBER:HASH")]
        noted: Option<Anchor>,
    },
    /// Print the log, a line of JSON for each entry.
    List {
        #[command(flatten)]
        place: DirArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// The server or cache: HOST:PORT, or unix:PATH.
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: Address,
    /// Which key.
    #[arg(long, value_name = "ID")]
    pub(crate) key: KeyId,
    /// Which version [default: the newest].
    #[arg(long, value_name = "N", value_parser = version)]
    pub(crate) version: Option<KeyVersion>,
    /// The server's certificate.
    #[arg(long, value_name = "FILE", conflicts_with = "server_policy")]
    pub(crate) server_certificate: Option<PathBuf>,
    /// Attestation policy of a server that runs with --ra-tls.
    #[arg(long, value_name = "policy.toml")]
    pub(crate) server_policy: Option<PathBuf>,
    /// How long to wait for the connection, and for each answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) deadline: u64,
    /// One line of JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) attestation: AttestationArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KeycacheArgs {
    #[command(subcommand)]
    pub(crate) command: KeycacheCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeycacheCommand {
    /// Make a cache's directory.
    Init(CacheInitArgs),
    /// Lease keys, and hand them to workers of this host.
    Serve(CacheServeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CacheInitArgs {
    /// Directory of the cache, which is made.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The key server.
    #[arg(long, value_name = "HOST:PORT", value_parser = super::common::address)]
    pub(crate) server: String,
    /// The key server's certificate.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "server_policy",
        conflicts_with = "server_policy"
    )]
    pub(crate) server_certificate: Option<PathBuf>,
    /// Attestation policy of a key server that runs with --ra-tls.
    #[arg(long, value_name = "policy.toml")]
    pub(crate) server_policy: Option<PathBuf>,
    /// Where workers reach it: a socket in the directory, or a loopback address.
    #[arg(long, value_name = "unix:PATH|HOST:PORT", default_value = "unix:cache.sock")]
    pub(crate) listen: Address,
}

#[derive(Debug, Args)]
pub(crate) struct CacheServeArgs {
    /// Directory of the cache.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Seal leases to this file of 32 bytes, made if needed, instead of to the enclave: whoever reads it and the leases has the
    /// keys.
    #[arg(long, value_name = "FILE")]
    pub(crate) sealing_key_file_insecure: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) attestation: AttestationArgs,
}

pub(super) fn version(text: &str) -> Result<KeyVersion, String> {
    let number = text.parse().ok().and_then(KeyVersion::new);
    number.ok_or_else(|| "expected a version: 1, 2, ..".to_owned())
}
