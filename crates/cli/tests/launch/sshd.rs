//! With a real sshd on a loopback port, where one is found: `PRIVET_SSHD`, or that of the system.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::output;
use crate::site::{Site, reserve, soon};
use crate::{killed, whole_run};

/// A running sshd. Dropping it ends it.
struct Sshd {
    process: Child,
    address: SocketAddr,
    home: tempfile::TempDir,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Sshd {
    /// Starts one with keys of its own; or why there is none.
    fn start() -> Result<Self, String> {
        let asked = std::env::var_os("PRIVET_SSHD").map(PathBuf::from);
        let usual = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"].map(PathBuf::from);
        let program = asked.into_iter().chain(usual).find(|path| path.is_file());
        let program = program.ok_or("no sshd; PRIVET_SSHD=PATH names one")?;
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for key in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key)))?;
        }
        let address = reserve().local_addr().unwrap();
        let (ip, port) = (address.ip(), address.port());
        let config = format!(
            "ListenAddress {ip}\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nMaxStartups 100\n",
            at("host").display(),
            at("user.pub").display()
        );
        fs::write(at("sshd_config"), config).unwrap();
        let public = fs::read_to_string(at("host.pub")).unwrap();
        fs::write(at("known_hosts"), format!("[{ip}]:{port} {public}")).unwrap();
        let client = format!(
            "IdentityFile {}\nIdentitiesOnly yes\nUserKnownHostsFile {}\nLogLevel ERROR\n",
            at("user").display(),
            at("known_hosts").display()
        );
        fs::write(at("ssh_config"), client).unwrap();
        run(Command::new(&program).arg("-t").arg("-f").arg(at("sshd_config")))?;
        // -D: it stays this process's child.
        let mut sshd = Command::new(program);
        sshd.arg("-D").arg("-E").arg(at("log")).arg("-f").arg(at("sshd_config"));
        let process = sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.map_err(|e| e.to_string())?;
        let sshd = Self { process, address, home };
        if !soon(|| TcpStream::connect(address).is_ok()) {
            return Err("sshd does not listen".to_owned());
        }
        let mut ssh = Command::new("sh");
        ssh.arg("-c").arg(format!("{} -p {port} -o BatchMode=yes {ip} true", sshd.ssh()));
        run(&mut ssh).map(|()| sshd)
    }

    /// ssh as its user has configured it for this sshd.
    fn ssh(&self) -> String {
        format!("ssh -F {}", self.home.path().join("ssh_config").display())
    }

    /// A place whose ssh is the real one.
    fn site(&self) -> Site {
        let ssh = find("ssh").unwrap();
        Site::with_ssh(&format!(
            "#!/bin/sh\nexec {} -F {} \"$@\"\n",
            ssh.display(),
            self.home.path().join("ssh_config").display()
        ))
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let ended = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&ended.stderr))),
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| Path::is_file(path))
}

#[test]
fn three_parties_over_a_real_sshd() {
    let sshd = match Sshd::start() {
        Ok(sshd) => sshd,
        Err(why) => return eprintln!("SKIPPED: launch is not tested with a real sshd: {why}"),
    };
    let host = sshd.address.to_string();
    let hosts = [&host[..]; 3].join(",");
    let site = sshd.site();
    fs::create_dir(site.at("hosts")).unwrap();
    let dir = site.at("hosts/{index}").to_str().unwrap().to_owned();
    let args = ["--hosts", &hosts, "--dir", &dir];
    whole_run(&site, &args, "hosts");
    killed(&site, &args, "hosts");
    // Only ssh dies: its party's end is a failure, and the others' end.
    let args = [&args[..], &["--out", "more"]].concat();
    let script = "echo up; exec sleep 1000";
    let mut launch = site.start(site.launch(&args).args(["--", "sh", "-c", script]), 3);
    let children = format!("/proc/{0}/task/{0}/children", launch.child().id());
    let children = fs::read_to_string(children).unwrap();
    let first = children.split_whitespace().next().unwrap();
    run(Command::new("kill").args(["-9", first])).unwrap();
    assert_eq!(launch.finish(), Some(1), "{}", site.read("stderr"));
    assert!(site.read("stderr").contains("ssh was killed"), "{}", site.read("stderr"));
    site.assert_nothing_is_left("hosts");
    // A login that is refused, and a host whose key is unknown.
    let (code, _, stderr) = output(site.launch(&args).args(["--ssh", "nosuchuser", "--", "true"]));
    assert!(code == Some(4) && stderr.contains("Permission denied"), "{stderr}");
    fs::write(sshd.home.path().join("known_hosts"), "").unwrap();
    let (code, _, stderr) = output(site.launch(&args).args(["--", "true"]));
    assert!(code == Some(4) && stderr.contains("Host key verification failed"), "{stderr}");
}
