//! `privet attest verify`: the verdict on evidence, line by line.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use privet::attest::policy::{Lint, MAX_POLICY_BYTES, Severity};
use privet::attest::ratls::RaTlsCertificate;
use privet::attest::{
    AttestError, Claims, Collateral, Evidence, Line, Policy, Tee, Verifier, Verifiers, appraise,
    certificates, check_dcap_collateral, revocation_lists, time_text,
};
use serde::Serialize;

use crate::args::attest::{AttestArgs, AttestCommand, VerifyArgs};
use crate::commands::print_line;
use crate::exit::{Code, Failure};
use crate::given;
use crate::show::{print, printable_line};

/// Larger files are none of those that are expected.
const MAX_FILE_BYTES: usize = 4 << 20;

/// What `--json` prints.
#[derive(Serialize)]
struct VerifyResult<'a> {
    file: String,
    evidence: Tee,
    at: String,
    /// Whether the evidence is authentic at this time.
    authentic: bool,
    /// Whether the policy accepts it; null without one, or if it is not authentic.
    accepted: Option<bool>,
    lines: &'a [Line],
    claims: Option<&'a Claims>,
    lints: &'a [Lint],
}

pub(crate) fn attest(args: &AttestArgs) -> anyhow::Result<()> {
    match &args.command {
        AttestCommand::Verify(args) => verify(args),
    }
}

fn verify(args: &VerifyArgs) -> anyhow::Result<()> {
    let policy = args.policy.as_deref().map(read_policy).transpose()?;
    let verifiers = Verifiers::new(collateral(args)?).allow_sample_insecure(args.allow_sample_insecure);
    let verifiers = verifiers.map_err(|e| Failure::error(Code::Usage, e.to_string()))?;
    let at = args.at.unwrap_or_else(SystemTime::now);
    given::file("", &args.file, "a quote, a report, or a certificate with evidence")?;
    let subject = Subject::read(&args.file)?;
    eprintln!("{}", printable_line(&format!("{}: {}", args.file.display(), subject.contents())));

    let mut lines = Vec::new();
    let claims = match subject.verify(&verifiers, at, &mut lines) {
        Ok(claims) => Some(claims),
        Err(error) => {
            lines.push(refusal(error)?);
            None
        }
    };
    let verdict = claims.as_ref().zip(policy.as_ref()).map(|(claims, policy)| appraise(claims, policy));
    let accepted = verdict.as_ref().map(privet::attest::Verdict::accepted);
    lines.extend(verdict.into_iter().flat_map(|verdict| verdict.lines));
    let lints = policy.as_ref().map(Policy::lint).unwrap_or_default();
    let result = VerifyResult {
        file: args.file.display().to_string(),
        evidence: subject.evidence().tee(),
        at: time_text(at),
        authentic: claims.is_some(),
        accepted,
        lines: &lines,
        claims: claims.as_ref(),
        lints: &lints,
    };
    if args.json {
        print_line(&result)?
    } else {
        print(&describe(&result))?
    }
    match lines.iter().find(|line| !line.passed) {
        None => Ok(()),
        Some(line) => {
            let kind = result.evidence;
            let found = printable_line(&line.found);
            let text = format!(
                "evidence of {kind} is refused: {}: expected {}, found {found}",
                line.check, line.expected
            );
            Err(Failure::error(Code::Peer, text))
        }
    }
}

/// What is verified.
enum Subject {
    Bare(Evidence),
    Certificate(Box<RaTlsCertificate>),
}

impl Subject {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = read(path, MAX_FILE_BYTES)?;
        let wrong = |e: AttestError| Failure::error(Code::Input, format!("{}: {e}", path.display()));
        let is_pem = |bytes: &[u8]| bytes.windows(10).take(64 << 10).any(|window| window == b"-----BEGIN");
        // A quote has PEM in it, but starts with its version, and a certificate in DER with a SEQUENCE.
        match Evidence::detect(&bytes) {
            Ok(evidence) => Ok(Self::Bare(evidence)),
            Err(_) if bytes.first() == Some(&0x30) || is_pem(&bytes) => {
                let der = certificates(&bytes).map_err(wrong)?;
                let first = der.first().map(Vec::as_slice).unwrap_or_default();
                Ok(Self::Certificate(Box::new(RaTlsCertificate::parse(first).map_err(wrong)?)))
            }
            Err(error) => Err(wrong(error)),
        }
    }

    /// What it is, before anything is verified.
    fn contents(&self) -> String {
        let evidence = self.evidence();
        let bytes = evidence.body().len();
        let text = format!("evidence of {}, {bytes} bytes of quote or report", evidence.tee());
        match self {
            Self::Bare(_) => text,
            Self::Certificate(certificate) => {
                let nonce = certificate
                    .binding()
                    .nonce()
                    .map_or("no nonce".to_owned(), |n| format!("nonce of {} bytes", n.len()));
                format!(
                    "a certificate with {text}, {nonce}; valid for {} s",
                    certificate.lifetime().as_secs()
                )
            }
        }
    }

    fn evidence(&self) -> &Evidence {
        match self {
            Self::Bare(evidence) => evidence,
            Self::Certificate(certificate) => certificate.evidence(),
        }
    }

    /// The claims, and the lines of what passed until then.
    fn verify(
        &self,
        verifiers: &Verifiers,
        at: SystemTime,
        lines: &mut Vec<Line>,
    ) -> Result<Claims, AttestError> {
        if let Self::Certificate(certificate) = self {
            certificate.check(at)?;
            lines.push(Line::new(
                "attested certificate",
                "valid, signed by the key that its evidence is for",
                "it is",
                true,
            ));
        }
        let claims = verifiers.verify(self.evidence(), at)?;
        lines.extend(claims.checks.iter().cloned());
        if let Self::Certificate(certificate) = self {
            certificate.check_report_data(&claims.report_data)?;
            let nonce = certificate
                .binding()
                .nonce()
                .map_or("none".to_owned(), |nonce| format!("{} bytes", nonce.len()));
            lines.push(Line::new(
                "report data",
                "the hash of the certificate's claims",
                format!("the same; nonce: {nonce}"),
                true,
            ));
        }
        Ok(claims)
    }
}

/// The line of a refusal; other errors are not about the evidence, or it has no form to say anything about.
fn refusal(error: AttestError) -> anyhow::Result<Line> {
    match error {
        AttestError::Refused { check, expected, found } => Ok(Line::new(check, expected, found, false)),
        AttestError::NoVerifier { tee, advice } => {
            Ok(Line::new("kind", "one that can be verified", format!("{tee}{advice}"), false))
        }
        other => Err(other.into()),
    }
}

fn describe(result: &VerifyResult) -> String {
    let mut text =
        format!("{} of {}, verified as of {}\n", printable_line(&result.file), result.evidence, result.at);
    for line in result.lines {
        let _ = writeln!(text, "{}", printable_line(&line.to_string()));
    }
    if let Some(claims) = result.claims {
        let _ = writeln!(text, "\nclaims:\n{}", claims_text(claims));
    }
    for lint in result.lints.iter().filter(|lint| lint.severity != Severity::Note) {
        let _ = writeln!(text, "policy, {}", printable_line(&lint.to_string()));
    }
    let kind = result.evidence;
    text.push_str(match (result.authentic, result.accepted) {
        (false, _) => "\nREFUSED: not authentic",
        (true, Some(false)) => "\nREFUSED: authentic, but not what the policy accepts",
        (true, Some(true)) => "\naccepted",
        (true, None) => "\nauthentic; without a policy, any software on any platform is",
    });
    if kind == Tee::Sample {
        let _ = write!(text, " ({kind}: it proves nothing)");
    }
    text
}

/// The claims but for the checks, a line each, as their JSON has them.
fn claims_text(claims: &Claims) -> String {
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::to_value(claims) else {
        return String::new();
    };
    fields.remove("checks");
    let mut lines = Vec::new();
    flatten("", &serde_json::Value::Object(fields), &mut lines);
    lines.join("\n")
}

fn flatten(name: &str, value: &serde_json::Value, lines: &mut Vec<String>) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name =
                    if name.is_empty() || name == "identity" { key.clone() } else { format!("{name} {key}") };
                flatten(&name, value, lines);
            }
        }
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            lines.push(format!(
                "  {name}: {}",
                if items.is_empty() { "none".to_owned() } else { items.join(", ") }
            ));
        }
        Value::String(text) => lines.push(format!("  {name}: {}", printable_line(text))),
        Value::Null => lines.push(format!("  {name}: not stated")),
        other => lines.push(format!("  {name}: {other}")),
    }
}

fn collateral(args: &VerifyArgs) -> anyhow::Result<Collateral> {
    let dcap = |path: &Path| {
        given::file("--collateral", path, "Intel's collateral in JSON (docs/attestation.md#collateral)")?;
        let json = read(path, MAX_FILE_BYTES)?;
        let wrong =
            |e: AttestError| Failure::error(Code::Input, format!("--collateral {}: {e}", path.display()));
        check_dcap_collateral(&json).map_err(wrong)?;
        anyhow::Ok(json)
    };
    Ok(Collateral {
        dcap: args.collateral.as_deref().map(dcap).transpose()?,
        certificates: parsed("--cert", "certificates in PEM or DER", &args.cert, certificates)?,
        crls: parsed("--crl", "a revocation list in PEM or DER", &args.crl, revocation_lists)?,
    })
}

/// What the files of an argument hold together.
fn parsed<T>(
    flag: &str,
    expected: &str,
    paths: &[PathBuf],
    parse: impl Fn(&[u8]) -> Result<Vec<T>, AttestError>,
) -> anyhow::Result<Vec<T>> {
    let mut all = Vec::new();
    for path in paths {
        given::file(flag, path, expected)?;
        let list = parse(&read(path, MAX_FILE_BYTES)?);
        all.extend(list.map_err(|e| Failure::error(Code::Input, format!("{flag} {}: {e}", path.display())))?);
    }
    Ok(all)
}

fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    given::file("--policy", path, given::POLICY)?;
    let wrong =
        |problem: String| Failure::error(Code::Input, format!("--policy {}: {problem}", path.display()));
    let text = String::from_utf8(read(path, MAX_POLICY_BYTES)?)
        .map_err(|_| wrong("it is not text in UTF-8".to_owned()))?;
    Policy::parse(&text).map_err(|e| wrong(e.to_string()))
}

fn read(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let fail =
        |problem: String| Failure::error(Code::Input, format!("cannot read {}: {problem}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| fail(e.to_string()))?;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
    if bytes.len() > limit {
        return Err(fail(format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}
