//! The commands that launch runs: ssh, with a script for the host that the login shell there gets as one word, and tar at
//! this end of it. What `--dry-run` shows is made from the same words.
//!
//! The script that runs the party ends it when its stdin ends: ssh closes that when launch closes its own end, and when launch,
//! ssh, or the connection is gone. sshd alone would let the party run on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::args::hosts::Host;

/// Words of a command line.
pub(super) type Words = Vec<OsString>;

/// Where in the working directory COMMAND leaves its results.
pub(super) const RESULTS_DIR: &str = "results";
/// What the script exits with when the program is not there, as a shell does.
pub(super) const NOT_FOUND: i32 = 127;
/// Seconds a party has to end by itself.
const GRACE_SECONDS: u32 = 3;

/// What is run for one host.
pub(super) struct Commands {
    /// The working directory there.
    pub(super) dir: String,
    /// Packs the party's directories, for [`Commands::copy`].
    pub(super) pack: Words,
    /// Makes the working directory and unpacks into it.
    pub(super) copy: Words,
    /// Runs COMMAND there until it ends, or stdin does.
    pub(super) run: Words,
    /// Packs the results.
    pub(super) fetch: Words,
    /// Unpacks what [`Commands::fetch`] sends.
    pub(super) unpack: Words,
    /// Removes the working directory.
    pub(super) remove: Words,
}

/// What they are made from.
pub(super) struct Target<'a> {
    pub(super) host: &'a Host,
    pub(super) user: Option<&'a str>,
    /// The party's number and name.
    pub(super) index: usize,
    pub(super) name: &'a str,
    /// The working directory there, in which `{index}` stands for the party's number.
    pub(super) dir: &'a str,
    /// COMMAND, with placeholders.
    pub(super) command: &'a [String],
    pub(super) keep: bool,
    /// Absolute paths of directories here that hold one of the party's name: its configuration, its shares.
    pub(super) sources: &'a [PathBuf],
    /// Absolute path of the directory here for its results.
    pub(super) results: &'a Path,
}

impl Commands {
    /// # Errors
    /// A word that no shell can be given: one with a NUL.
    pub(super) fn new(target: &Target<'_>) -> Result<Self, shlex::QuoteError> {
        let dir = target.dir.replace("{index}", &target.index.to_string());
        let parent = Path::new(&dir).parent().and_then(Path::to_str).filter(|parent| !parent.is_empty());
        let make_parent = parent.map(|p| Ok(format!("mkdir -p -- {} && ", shlex::try_quote(p)?)));
        let make_parent = make_parent.transpose()?.unwrap_or_default();
        let own_dir = dir.clone();
        let dir = shlex::try_quote(&dir)?;
        let words = target.command.iter().map(|word| target.quote(word)).collect::<Result<Vec<_>, _>>()?;
        let (command, program) = (words.join(" "), &words[0]);
        let ssh = |script: &str| target.ssh(script);
        let copy = format!(
            "umask 077; {make_parent}mkdir -- {dir} && cd -- {dir} || exit; \
             mkdir {RESULTS_DIR} && tar -xof - || {{ s=$?; rm -rf -- \"$PWD\"; exit $s; }}; \
             command -v {program} >/dev/null || {{ rm -rf -- \"$PWD\"; exit {NOT_FOUND}; }}"
        );
        // In order: the command, in the background, without stdin; a reader, which reads stdin to its end and then ends all in
        // this shell's process group, gently first; and this shell, which waits for the command, takes the reader away, and
        // passes the status on. USR1 ends a reader that reads, and does nothing to one that has begun to end the rest: then
        // nobody waits for the status, and the directory goes. What a shell says of a killed command may have nobody to read
        // it, which must not end this one (PIPE).
        let lost = if target.keep { "" } else { "rm -rf -- \"$PWD\"; " };
        let run = format!(
            "umask 077; cd -- {dir} && exec 3<&0 || exit; {command} </dev/null 3<&- & c=$!; trap \"\" TERM PIPE; \
             ( while read -r _ <&3; do :; done; trap \"\" USR1; kill -s TERM -- -$$ || kill -s TERM $c; \
             ( sleep {GRACE_SECONDS}; kill -s KILL $c ) & exit 0 ) >/dev/null 2>&1 & w=$!; \
             wait $c; s=$?; exec >/dev/null 2>&1; kill -s USR1 $w; \
             if wait $w; then {lost}kill -s KILL -- -$$; fi; kill -s TERM -- -$$; exit $s"
        );
        let mut pack: Words = ["tar", "-chf", "-"].map(OsString::from).into();
        for source in target.sources {
            pack.extend(["-C".into(), source.into(), target.name.into()]);
        }
        let mut unpack: Words = ["tar", "-xof", "-", "-C"].map(OsString::from).into();
        unpack.push(target.results.into());
        Ok(Self {
            dir: own_dir,
            pack,
            copy: ssh(&copy)?,
            run: ssh(&run)?,
            fetch: ssh(&format!("cd -- {dir}/{RESULTS_DIR} && tar -cf - ."))?,
            unpack,
            remove: ssh(&format!("rm -rf -- {dir}"))?,
        })
    }
}

impl Target<'_> {
    /// ssh, which asks nobody for anything, notices a host that has gone, and checks keys of hosts as its user does.
    fn ssh(&self, script: &str) -> Result<Words, shlex::QuoteError> {
        let options = ["BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", "ControlMaster=no"];
        let mut words: Words = vec!["ssh".into(), "-T".into()];
        words.extend(options.iter().flat_map(|option| ["-o", option]).map(OsString::from));
        if let Some(port) = self.host.port {
            words.extend(["-p".into(), port.to_string().into()]);
        }
        if let Some(user) = self.user {
            words.extend(["-l".into(), user.into()]);
        }
        // The login shell may be any; with exec, sh leads the process group that sshd makes.
        let script = format!("exec sh -c {}", shlex::try_quote(script)?);
        words.extend(["--".into(), self.host.name.as_str().into(), script.into()]);
        Ok(words)
    }

    /// A word of COMMAND with its placeholders replaced, as one word for sh.
    fn quote(&self, word: &str) -> Result<String, shlex::QuoteError> {
        let word = word.replace("{index}", &self.index.to_string());
        let word = word.replace("{name}", self.name).replace("{host}", &self.host.name);
        // Only the host knows its working directory's full path.
        let parts = word.split("{dir}").map(|part| match part {
            "" => Ok(String::new()),
            part => Ok(shlex::try_quote(part)?.into_owned()),
        });
        let parts: Vec<String> = parts.collect::<Result<_, _>>()?;
        let quoted = parts.join("\"$PWD\"");
        Ok(if quoted.is_empty() { "''".to_owned() } else { quoted })
    }
}

/// A command line as a shell takes it.
pub(super) fn line(words: &[OsString]) -> String {
    let quote = |word: &OsString| {
        let word = word.to_string_lossy();
        // None has a NUL: it would not have become a path, an argument, or the script.
        shlex::try_quote(&word).map_or_else(|_| String::from("?"), |quoted| quoted.into_owned())
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target<'a>(host: &'a Host, command: &'a [String], dir: &'a str) -> Target<'a> {
        let results = Path::new("/r");
        Target {
            host,
            user: None,
            index: 1,
            name: "party1",
            dir,
            command,
            keep: false,
            sources: &[],
            results,
        }
    }

    #[test]
    fn words_stay_words() {
        let host = Host::parse("a").unwrap();
        let odd =
            ["printf", "%s|", "it's", "", "$(id)", "a b", "`id`", "!x", "{index}.{name}.{host}", "\"", "\\"];
        let command: Vec<String> = odd.map(str::to_owned).into();
        let words = target(&host, &command, "d");
        let line: Vec<String> = command.iter().map(|word| words.quote(word).unwrap()).collect();
        let output = std::process::Command::new("sh").arg("-c").arg(line.join(" ")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, "it's||$(id)|a b|`id`|!x|1.party1.a|\"|\\|");
    }

    #[test]
    fn the_working_directory_is_the_hosts_own_path() {
        let host = Host::parse("a").unwrap();
        let command = ["echo".to_owned(), "{dir}/x y{dir}".to_owned()];
        let quoted = target(&host, &command, "d").quote(&command[1]).unwrap();
        let home = tempfile::tempdir().unwrap();
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("printf %s {quoted}"))
            .current_dir(home.path())
            .output()
            .unwrap();
        let pwd = home.path().canonicalize().unwrap();
        let pwd = pwd.to_str().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{pwd}/x y{pwd}"));
    }

    #[test]
    fn a_nul_is_refused() {
        let host = Host::parse("a").unwrap();
        assert!(Commands::new(&target(&host, &["a\0b".to_owned()], "d")).is_err());
        assert!(Commands::new(&target(&host, &["a".to_owned()], "d\0")).is_err());
    }
}
