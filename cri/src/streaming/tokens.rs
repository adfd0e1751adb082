//! Single-use tokens: whoever has one may open that one session, once, within
//! a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;

use super::Session;

/// How long a client may take to follow its URL.
const LIFETIME: Duration = Duration::from_secs(60);
/// URLs that may be waiting to be followed.
const MAX_PENDING: usize = 1000;
const TOKEN_BYTES: usize = 18;

#[derive(Debug, Error)]
pub enum TooMany {
    #[error("{MAX_PENDING} streaming URLs have not been followed yet; try again later")]
    Pending,
    #[error("no random bytes for a token: {0}")]
    Random(rustix::io::Errno),
}

/// Sessions that wait for their client.
#[derive(Debug, Default)]
pub struct Tokens {
    pending: Mutex<HashMap<String, (Session, Instant)>>,
}

impl Tokens {
    /// Keeps a session and answers its token.
    pub fn insert(&self, session: Session) -> Result<String, TooMany> {
        let mut bytes = [0u8; TOKEN_BYTES];
        rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
            .map_err(TooMany::Random)?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let now = Instant::now();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.retain(|_, (_, expires)| *expires > now);
        if pending.len() >= MAX_PENDING {
            return Err(TooMany::Pending);
        }
        pending.insert(token.clone(), (session, now + LIFETIME));
        Ok(token)
    }

    /// The session of a token, which is used up by this.
    pub fn take(&self, token: &str) -> Option<Session> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let (session, expires) = pending.remove(token)?;
        (expires > Instant::now()).then_some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PortForward;
    use super::*;

    fn session() -> Session {
        Session::PortForward(PortForward {
            sandbox_id: "s".into(),
            ports: vec![80],
        })
    }

    #[test]
    fn tokens_work_once() {
        let tokens = Tokens::default();
        let token = tokens.insert(session()).expect("token");
        assert_eq!(tokens.take("other"), None);
        assert_eq!(tokens.take(&token), Some(session()));
        assert_eq!(tokens.take(&token), None);
    }

    #[test]
    fn pending_tokens_are_bounded() {
        let tokens = Tokens::default();
        for _ in 0..MAX_PENDING {
            tokens.insert(session()).expect("token");
        }
        assert!(matches!(tokens.insert(session()), Err(TooMany::Pending)));
    }
}
