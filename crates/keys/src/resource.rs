//! What is asked for: `{key id}/{kind}/{version}`, the three parts of a resource's path in a KBS.

use std::fmt;
use std::str::FromStr;

use privet_seal::{KeyId, KeyVersion};

/// In which form a key is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The 32 bytes alone, as any KBS client expects a resource.
    Key,
    /// With what the owner says about it: [`crate::Grant`].
    Release,
    /// To a cache, with the owner's policy: [`crate::Lease`].
    Lease,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Release => "release",
            Self::Lease => "lease",
        }
    }
}

/// A key in one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Whose name.
    pub key: KeyId,
    /// In which form.
    pub kind: Kind,
    /// Which version; `None` the newest that has not been revoked, in a path `latest`.
    pub version: Option<KeyVersion>,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", self.key, self.kind.name())?;
        match self.version {
            Some(version) => version.fmt(f),
            None => f.write_str("latest"),
        }
    }
}

impl FromStr for Resource {
    type Err = String;

    fn from_str(path: &str) -> Result<Self, String> {
        let mut parts = path.splitn(3, '/');
        let (Some(key), Some(kind), Some(tag)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("expected KEY/KIND/VERSION, such as resnet/release/latest".to_owned());
        };
        let key = key.parse().map_err(|_| "expected the id of a key in its first part".to_owned())?;
        let kind = [Kind::Key, Kind::Release, Kind::Lease].into_iter().find(|known| known.name() == kind);
        let kind = kind.ok_or("expected key, release or lease in its second part")?;
        // Of one number there is one form.
        let number =
            |tag: &str| tag.parse().ok().filter(|n: &u32| n.to_string() == tag).and_then(KeyVersion::new);
        let version = match tag {
            "latest" => None,
            tag => Some(number(tag).ok_or("expected latest or a version from 1 in its third part")?),
        };
        Ok(Self { key, kind, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_back_and_nothing_else_is_one() {
        for path in ["resnet/key/latest", "a.b-c_d/release/7", "x/lease/4294967295"] {
            assert_eq!(path.parse::<Resource>().unwrap().to_string(), path);
        }
        for path in [
            "",
            "resnet",
            "resnet/key",
            "resnet/key/",
            "resnet/key/0",
            "resnet/key/01",
            "resnet/key/+1",
            "../key/1",
            "resnet/keys/1",
            "resnet/key/1/2",
            "resnet/key/4294967296",
            "resnet//1",
            ".x/key/1",
            "a b/key/1",
            "resnet/key/Latest",
        ] {
            assert!(path.parse::<Resource>().is_err(), "{path}");
        }
    }
}
