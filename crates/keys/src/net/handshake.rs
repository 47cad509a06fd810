//! Why a connection by TLS did not come about or broke off, in words that say what to do.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// What was expected at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A key server or key cache.
    Keys,
    /// A worker.
    Worker,
}

impl Wanted {
    fn name(self) -> &'static str {
        match self {
            Self::Keys => "a key server or key cache",
            Self::Worker => "a worker",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Self::Keys => "the key server or key cache",
            Self::Worker => "the worker",
        }
    }

    /// Who does not speak its protocol, and where one goes instead.
    fn another(self) -> &'static str {
        match self {
            Self::Keys => {
                "this is not a key server or key cache: it does not speak their protocol. A worker (privet enclave) \
                 answers so; give the address of what releases its key"
            }
            Self::Worker => {
                "this is not a worker: it does not speak a worker's protocol. A key server or key cache answers so; \
                 inputs go to the address that privet enclave listens on"
            }
        }
    }

    /// Whoever is here shows no evidence of itself.
    fn attested_only(self) -> &'static str {
        match self {
            Self::Keys => {
                "it takes only peers that attest themselves in TLS (serve --ra-tls --clients): name it by \
                 --server-policy instead of --server-certificate, which shows it this side's evidence"
            }
            Self::Worker => {
                "it takes only peers that attest themselves (--clients), as workers with later stages of a model do: \
                 ask the worker that has the first stage"
            }
        }
    }
}

/// Why connecting failed.
pub fn connect_problem(error: &io::Error, wanted: Wanted) -> String {
    let advice = match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            "; does it run, and is this its address?"
        }
        _ => "",
    };
    format!("cannot connect to {}: {error}{advice}", wanted.name())
}

/// Why a handshake failed.
pub fn handshake_problem(error: &io::Error, wanted: Wanted) -> String {
    if let Some(problem) = tls_problem(error, wanted) {
        return problem;
    }
    if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
        return format!(
            "it ended the connection before it had said anything in TLS; is this the address of {}, and has it room \
             for another connection?",
            wanted.name()
        );
    }
    format!("TLS: {error}")
}

/// Why no answer came over a connection that was open.
pub fn answer_problem(error: &(dyn StdError + 'static), wanted: Wanted) -> String {
    if let Some(problem) = tls_problem(error, wanted) {
        return problem;
    }
    if has_ended(error) {
        return format!(
            "{} broke the connection before it answered (it may have been stopped or killed): ask again",
            wanted.subject()
        );
    }
    format!("no answer: {error}")
}

/// Whether the other end has gone, behind whatever sockets, TLS and HTTP call it.
fn has_ended(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};

    let mut next = Some(error);
    while let Some(error) = next {
        let of_socket = error.downcast_ref::<io::Error>().map(io::Error::kind);
        let of_http = error.downcast_ref::<hyper::Error>();
        let ended = |kind| matches!(kind, UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe);
        let cut_short = |e: &hyper::Error| e.is_incomplete_message() || e.is_closed() || e.is_canceled();
        if of_socket.is_some_and(ended) || of_http.is_some_and(cut_short) {
            return true;
        }
        next = error.source();
    }
    false
}

/// What TLS says about an error, also of a connection that was open already: in TLS 1.3 a client knows only then whether its
/// certificate was accepted.
fn tls_problem(error: &(dyn StdError + 'static), wanted: Wanted) -> Option<String> {
    use AlertDescription as Alert;

    Some(match rustls_error(error)? {
        Error::AlertReceived(Alert::NoApplicationProtocol) => wanted.another().to_owned(),
        Error::NoApplicationProtocol => wanted.another().to_owned(),
        Error::AlertReceived(Alert::CertificateRequired) => wanted.attested_only().to_owned(),
        Error::AlertReceived(
            Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::AccessDenied
            | Alert::UnknownCA
            | Alert::CertificateExpired
            | Alert::UnsupportedCertificate,
        ) => "it refuses this side's evidence: its policy for those who connect (--clients) does not accept it, or \
              its clock is another"
            .to_owned(),
        Error::InvalidMessage(_) => {
            format!("what it says is not TLS; is this the address and port of {}?", wanted.name())
        }
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            "TLS: its certificate is not the pinned one; --server-certificate takes the tls.crt of this very server \
             or cache, and a server with --ra-tls is named by --server-policy"
                .to_owned()
        }
        Error::InvalidCertificate(CertificateError::Other(why)) => format!("TLS: {}", why.0),
        other => format!("TLS: {other}"),
    })
}

/// The error of TLS that is behind another.
fn rustls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_put_into_words() {
        let io = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let alert = |alert| io(Error::AlertReceived(alert));
        for (error, wanted, expected) in [
            (
                alert(AlertDescription::NoApplicationProtocol),
                Wanted::Worker,
                "A key server or key cache answers so",
            ),
            (
                alert(AlertDescription::NoApplicationProtocol),
                Wanted::Keys,
                "A worker (privet enclave) answers so",
            ),
            (
                alert(AlertDescription::CertificateRequired),
                Wanted::Worker,
                "ask the worker that has the first stage",
            ),
            (alert(AlertDescription::CertificateUnknown), Wanted::Worker, "--clients"),
            (
                io(Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)),
                Wanted::Worker,
                "not TLS",
            ),
            (io::ErrorKind::UnexpectedEof.into(), Wanted::Keys, "ended the connection"),
        ] {
            // As it is, and where other libraries have wrapped it.
            let said = handshake_problem(&error, wanted);
            assert!(said.contains(expected), "{said}");
            let wrapped = io::Error::other(error);
            assert!(tls_problem(&wrapped, wanted).is_none_or(|said| said.contains(expected)));
        }
        let broken = answer_problem(&io::Error::from(io::ErrorKind::UnexpectedEof), Wanted::Worker);
        assert!(
            broken.starts_with("the worker broke the connection") && broken.contains("ask again"),
            "{broken}"
        );
        let refused = connect_problem(&io::ErrorKind::ConnectionRefused.into(), Wanted::Worker);
        assert!(refused.contains("is this its address"), "{refused}");
    }
}
