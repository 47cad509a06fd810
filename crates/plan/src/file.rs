//! The plan's file and wire encoding: magic, version, length, postcard body, SHA-256 trailer.

use crate::{Digest, PLAN_VERSION, Plan, PlanError};

const MAGIC: &[u8; 8] = b"PRIVPLAN";
const HEADER: usize = MAGIC.len() + 2 + 8;
const TRAILER: usize = 32;

/// Largest plan accepted from a file or peer, in bytes.
pub const MAX_PLAN_BYTES: usize = 16 << 20;

impl Plan {
    /// The canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("a plan has no unserialisable parts");
        let mut bytes = Vec::with_capacity(HEADER + body.len() + TRAILER);
        bytes.extend(MAGIC);
        bytes.extend(PLAN_VERSION.to_le_bytes());
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(body);
        let digest = Digest::of("privet plan", &bytes);
        bytes.extend(digest.0);
        bytes
    }

    /// Parses and validates a plan from foreign bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PlanError> {
        let fail = |problem: String| PlanError::File { what: "plan file", problem };
        if bytes.len() > MAX_PLAN_BYTES {
            return Err(fail(format!("{} bytes, at most {MAX_PLAN_BYTES} are accepted", bytes.len())));
        }
        if bytes.len() < HEADER + TRAILER || !bytes.starts_with(MAGIC) {
            return Err(fail("not a Privet plan (or cut short)".to_owned()));
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != PLAN_VERSION {
            return Err(fail(format!("version {version}, this build reads version {PLAN_VERSION}")));
        }
        let (signed, digest) = bytes.split_at(bytes.len() - TRAILER);
        let body = &signed[HEADER..];
        let declared = u64::from_le_bytes(signed[10..HEADER].try_into().expect("eight bytes"));
        if declared != body.len() as u64 {
            return Err(fail(format!("cut short: {declared} bytes declared, {} present", body.len())));
        }
        if Digest::of("privet plan", signed).0 != digest {
            return Err(fail("damaged: the checksum does not match".to_owned()));
        }
        let (plan, rest): (Plan, _) = postcard::take_from_bytes(body).map_err(|e| fail(e.to_string()))?;
        if !rest.is_empty() {
            return Err(fail(format!("{} bytes after the plan", rest.len())));
        }
        plan.validate()?;
        Ok(plan)
    }

    /// The digest all parties compare before the first message.
    pub fn digest(&self) -> Digest {
        let bytes = self.to_bytes();
        Digest(bytes[bytes.len() - TRAILER..].try_into().expect("the trailer is a digest"))
    }
}
