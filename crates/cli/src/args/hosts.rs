//! Hosts and users as ssh gets them: checked here, so that none of them is read as an option or by a shell.

use std::fmt;

/// A host that ssh reaches: a name, an address, or what `~/.ssh/config` calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Without the brackets of an IPv6 address.
    pub(crate) name: String,
    /// Of the ssh server, if it is not the one that ssh takes by itself.
    pub(crate) port: Option<u16>,
}

impl Host {
    /// `HOST`, `HOST:PORT`, an IPv6 address, or one in brackets with a port.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some((user, host)) = text.split_once('@') {
            return Err(format!("expected a host, found a user as well; use --ssh {user} and {host}"));
        }
        let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, "")) => (name, None),
            Some((name, port)) => (name, Some(port.strip_prefix(':').ok_or("expected [ADDRESS]:PORT")?)),
            None => match text.split_once(':') {
                Some((name, port)) if !port.contains(':') => (name, Some(port)),
                // Several colons without brackets are an IPv6 address.
                _ => (text, None),
            },
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
        if name.is_empty() || name.starts_with('-') || !name.chars().all(is_plain) {
            return Err(format!(
                "expected HOST or HOST:PORT, of letters, digits, '.', '-' and '_', found {text:?}"
            ));
        }
        let is_port = |port: &u16| *port > 0;
        let number = |port: &str| port.parse().ok().filter(is_port).ok_or("expected a port from 1 to 65535");
        Ok(Self { name: name.to_owned(), port: port.map(number).transpose()? })
    }

    /// The host of a party's address, `HOST:PORT`; the port is the party's.
    pub(crate) fn of_address(address: &str) -> Result<Self, String> {
        Ok(Self { port: None, ..Self::parse(address)? })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        match port {
            Some(port) if name.contains(':') => write!(f, "[{name}]:{port}"),
            Some(port) => write!(f, "{name}:{port}"),
            None => f.write_str(name),
        }
    }
}

/// A user's name there.
pub(crate) fn user(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if text.is_empty() || text.starts_with('-') || !text.chars().all(is_plain) {
        return Err(format!("expected a user's name of letters, digits, '.', '-' and '_', found {text:?}"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_ports() {
        let host = |name: &str, port| Ok(Host { name: name.to_owned(), port });
        for (text, expected) in [
            ("a.example", host("a.example", None)),
            ("gpu-1:2222", host("gpu-1", Some(2222))),
            ("127.0.0.1", host("127.0.0.1", None)),
            ("::1", host("::1", None)),
            ("[fe80::1%eth0]:22", host("fe80::1%eth0", Some(22))),
        ] {
            assert_eq!(Host::parse(text), expected, "{text}");
            assert_eq!(Host::parse(&expected.unwrap().to_string()).unwrap(), Host::parse(text).unwrap());
        }
        assert_eq!(Host::of_address("a.example:7200"), host("a.example", None));
        assert_eq!(Host::of_address("[::1]:7200"), host("::1", None));
    }

    #[test]
    fn what_ssh_or_a_shell_would_misread_is_refused() {
        let bad =
            ["", "-oProxyCommand=sh", "a b", "a\tb", "a;id", "$(id)", "a`id`", "a'", "a:", "a:0", "a:66666"];
        for text in bad.into_iter().chain(["a:x", "[::1", "[::1]22", "[]:22", "-a:22", "a/b", "a\n", "ä"]) {
            assert!(Host::parse(text).is_err(), "{text:?}");
        }
        assert!(Host::parse("me@a").unwrap_err().contains("--ssh me"));
        for text in ["", "-l", "a b", "a@b", "a;b", "$HOME", "a'b"] {
            assert!(user(text).is_err(), "{text:?}");
        }
        assert_eq!(user("j.doe-2_x"), Ok("j.doe-2_x".to_owned()));
    }
}
