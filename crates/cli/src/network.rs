//! The network between the parties: this machine's loopback interface, or connections made as slow as another one.

use std::fmt;

use privet::Emulated;

use crate::exit::{Code, Failure};

/// What `--network` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    name: String,
    /// What connections are made as slow as, if anything.
    pub(crate) link: Option<Emulated>,
}

impl Network {
    /// The name of the network as it is.
    pub(crate) const LOOPBACK: &str = "loopback";

    /// The network as it is.
    pub(crate) fn loopback() -> Self {
        Self { name: Self::LOOPBACK.to_owned(), link: None }
    }

    /// What is chosen for if nothing is said.
    pub(crate) fn lan() -> Self {
        Self { name: "lan".to_owned(), link: Some(Emulated::LAN) }
    }

    /// Reads `loopback`, `lan`, `wan` or a description of a link.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let link = match text {
            Self::LOOPBACK => None,
            "lan" => Some(Emulated::LAN),
            "wan" => Some(Emulated::WAN),
            link => {
                let link =
                    Emulated::parse(link).map_err(|problem| format!("{problem}; or loopback, lan or wan"))?;
                return Ok(Self { name: link.to_string(), link: Some(link) });
            }
        };
        Ok(Self { name: text.to_owned(), link })
    }

    /// The engine `cleartext` sends nothing: a network for it is a mistake.
    pub(crate) fn refuse_in_the_clear(&self) -> anyhow::Result<()> {
        if self.link.is_none() { Ok(()) } else { Err(self.useless_in_the_clear()) }
    }

    /// For where a network has been asked for, even the loopback interface.
    pub(crate) fn useless_in_the_clear(&self) -> anyhow::Error {
        let text = format!(
            "--network {self}: the engine cleartext sends nothing; leave it out, or use --engine 2pc"
        );
        Failure::error(Code::Usage, text)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_names() {
        for name in ["loopback", "lan", "wan", "200mbit:10ms", "1gbit:500us:100us"] {
            assert_eq!(Network::parse(name).unwrap().to_string(), name);
        }
        assert_eq!(Network::parse("0.2gbit:0.01s").unwrap().to_string(), "200mbit:10ms");
        assert_eq!(Network::parse("wan").unwrap().link, Some(Emulated::WAN));
        let problem = Network::parse("wlan").unwrap_err();
        assert!(problem.contains("RATE:RTT") && problem.contains("lan"), "{problem}");
    }
}
