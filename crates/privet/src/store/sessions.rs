//! A number that both sides of a pair count up together, so that neither can go back in time unnoticed.
//!
//! Every inference has a number. The server proposes the next one in the transaction that burns its bundle, the client
//! takes it over in the transaction that burns its own, and shows it at the beginning of the next session. A client that
//! shows less than the server knows it to have had, or more than the server has ever proposed, tells that the client's or
//! the server's state is an old copy: from a backup, a snapshot, or a second directory of one identity.
//!
//! A message that is lost, or a process that dies, leaves the client behind what was proposed, never behind what it has shown.

use serde::{Deserialize, Serialize};

/// What a server remembers of the sessions with one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sessions {
    /// The highest number that the client is known to have taken over.
    confirmed: u64,
    /// The highest number proposed.
    proposed: u64,
}

/// Whose state is an old copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rollback {
    /// It has shown a higher number before.
    Client {
        /// What it shows now.
        shown: u64,
        /// What it is known to have had.
        confirmed: u64,
    },
    /// The client has a number that this server does not remember to have proposed.
    Server {
        /// What the client shows.
        shown: u64,
        /// What this state remembers.
        proposed: u64,
    },
}

impl Sessions {
    /// The beginning of an offline session. A side whose state is new takes over the other's number: it has no material
    /// that could have been used before.
    pub(crate) fn resume(own: Option<Self>, shown: Option<u64>) -> Result<Self, Rollback> {
        match (own, shown) {
            (Some(own), Some(shown)) => own.confirm(shown),
            (Some(own), None) => Ok(Self { confirmed: own.proposed, ..own }),
            (None, shown) => {
                let number = shown.unwrap_or(0);
                Ok(Self { confirmed: number, proposed: number })
            }
        }
    }

    /// The client shows that it has taken over `shown`.
    pub(crate) fn confirm(self, shown: u64) -> Result<Self, Rollback> {
        let Self { confirmed, proposed } = self;
        if shown < confirmed {
            return Err(Rollback::Client { shown, confirmed });
        }
        if shown > proposed {
            return Err(Rollback::Server { shown, proposed });
        }
        Ok(Self { confirmed: shown, proposed })
    }

    /// One inference more.
    pub(crate) fn propose(self) -> Self {
        Self { proposed: self.proposed.saturating_add(1), ..self }
    }

    /// The highest number proposed.
    pub(crate) fn proposed(self) -> u64 {
        self.proposed
    }
}

impl std::fmt::Display for Rollback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whose, shown) = match self {
            Self::Client { shown, .. } => ("client", shown),
            Self::Server { shown, .. } => ("server", shown),
        };
        write!(
            f,
            "the {whose}'s state is an old copy (from a backup, or a second directory of one identity): "
        )?;
        match self {
            Self::Client { confirmed, .. } => {
                write!(f, "it is at session {shown} and has been at {confirmed}")?;
            }
            Self::Server { proposed, .. } => {
                write!(f, "the client is at session {shown}, it knows {proposed}")?
            }
        }
        write!(
            f,
            "; its one-time material may have been used. Remove the {whose}'s state directory and run the offline phase again"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Server and client as they are meant to act, with copies of their states to go back to.
    #[derive(Clone, Copy)]
    struct Pair {
        server: Sessions,
        client: u64,
    }

    impl Pair {
        fn new() -> Self {
            let server = Sessions::resume(None, None).unwrap();
            Self { server, client: server.proposed() }
        }

        /// An inference, of which the client learns if `arrives`, and the server of that if `ends`.
        fn session(&mut self, arrives: bool, ends: bool) -> Result<(), Rollback> {
            self.server = self.server.confirm(self.client)?.propose();
            let number = self.server.proposed();
            if arrives {
                self.client = number;
            }
            if arrives && ends {
                self.server = self.server.confirm(number)?;
            }
            Ok(())
        }
    }

    #[test]
    fn lost_messages_are_no_rollback() {
        for pattern in 0..3u32.pow(7) {
            let mut pair = Pair::new();
            for i in 0..7 {
                let what = pattern / 3u32.pow(i) % 3;
                pair.session(what > 0, what > 1).unwrap();
            }
        }
    }

    #[test]
    fn one_restored_side_is_named() {
        let mut pair = Pair::new();
        pair.session(true, true).unwrap();
        let yesterday = pair;
        pair.session(true, true).unwrap();
        let mut client_restored = Pair { client: yesterday.client, ..pair };
        let expected = Rollback::Client { shown: 1, confirmed: 2 };
        assert_eq!(client_restored.session(true, true), Err(expected));
        assert_eq!(Sessions::resume(Some(pair.server), Some(yesterday.client)), Err(expected));
        let mut server_restored = Pair { server: yesterday.server, ..pair };
        let expected = Rollback::Server { shown: 2, proposed: 1 };
        assert_eq!(server_restored.session(true, true), Err(expected));
        assert_eq!(Sessions::resume(Some(yesterday.server), Some(pair.client)), Err(expected));
    }

    #[test]
    fn a_new_state_takes_over_the_other_number() {
        let server = Sessions { confirmed: 3, proposed: 5 };
        let resumed = Sessions::resume(Some(server), None).unwrap();
        assert_eq!(resumed, Sessions { confirmed: 5, proposed: 5 });
        assert_eq!(Sessions::resume(None, Some(7)).unwrap().propose().proposed(), 8);
    }
}
