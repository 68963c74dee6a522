//! Key shares brought to an attempt on an unsealed node, one by one, until there are enough. Decides; does nothing.
//!
//! **Invariant:** until the threshold is reached a well-formed share gets the same answer whether it is right or not;
//! afterwards a wrong set is refused as a set, and the attempt goes on from nothing. Nobody learns which was bad.

use arca_barrier::{Share, combine};
use zeroize::Zeroizing;

/// A share was not taken, or the attempt does not go on as asked. Never quotes a share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AttemptError {
    /// Another attempt is under way.
    #[error("{0} already in progress")]
    Busy(&'static str),
    /// New shares wait for their verification.
    #[error(
        "rekey operation already finished; verification must be performed; nonce for the verification operation is \
         {0:?}"
    )]
    Finished(String),
    /// The numbers make no sense, or a text is malformed.
    #[error("{0}")]
    Invalid(String),
    /// Nothing is under way.
    #[error("{0}")]
    None(&'static str),
    /// The share was given before.
    #[error("given key has already been provided during this {0} operation")]
    Repeated(&'static str),
    /// It was meant for another attempt. The nonce is no secret: anybody may ask for it.
    #[error("incorrect nonce supplied; nonce for this {what} operation is {nonce:?}")]
    WrongNonce {
        /// What is under way.
        what: &'static str,
        /// Its nonce.
        nonce: String,
    },
    /// Together the shares are not the key.
    #[error("{0}")]
    WrongShares(&'static str),
}

/// Shares of one attempt. Wiped when dropped.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    shares: Vec<Share>,
}

impl Collected {
    /// How many there are.
    pub(crate) fn progress(&self) -> u8 {
        u8::try_from(self.shares.len()).unwrap_or(u8::MAX)
    }

    /// Adds a share; with enough of them, gives the key they make and starts over. `what` is said when this share was
    /// given before, `wrong` when they make none.
    pub(crate) fn offer(
        &mut self,
        share: Share,
        threshold: u8,
        what: &'static str,
        wrong: &'static str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, AttemptError> {
        if self.shares.iter().any(|known| known.is_same(&share)) {
            return Err(AttemptError::Repeated(what));
        }
        self.shares.push(share);
        if self.shares.len() < usize::from(threshold) {
            return Ok(None);
        }
        let shares = std::mem::take(&mut self.shares);
        combine(&shares).map(Some).map_err(|_| AttemptError::WrongShares(wrong))
    }

    /// Forgets them.
    pub(crate) fn reset(&mut self) {
        self.shares.clear();
    }
}

/// Reads a share as people enter it.
pub(crate) fn share(text: &str) -> Result<Share, AttemptError> {
    Share::parse(text)
        .map_err(|_| AttemptError::Invalid("'key' must be a valid hex or base64 string".to_owned()))
}

/// Refuses a share for another attempt.
pub(crate) fn check_nonce(what: &'static str, nonce: &str, given: &str) -> Result<(), AttemptError> {
    // Not in constant time: whoever asks is told the nonce.
    if nonce == given { Ok(()) } else { Err(AttemptError::WrongNonce { what, nonce: nonce.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use arca_barrier::{OsEntropy, split};

    use super::*;

    const SECRET: [u8; 32] = [7; 32];
    const REPEATED: &str = "given key has already been provided during this test operation";

    /// Offers shares by their place, the second number changing their first byte; each step gives the key (and
    /// whether it is right), the progress, or the error.
    #[track_caller]
    fn check(shares: u8, threshold: u8, steps: &[(usize, u8, &str)]) {
        let made = split(&SECRET, shares, threshold, &OsEntropy).unwrap();
        let mut collected = Collected::default();
        for (at, change, want) in steps {
            let mut bytes = Zeroizing::new(made[*at].expose().to_vec());
            bytes[0] ^= change;
            let got = match collected.offer(Share::from_bytes(bytes), threshold, "test", "wrong") {
                Ok(Some(key)) => format!("key {}", key.as_slice() == SECRET),
                Ok(None) => collected.progress().to_string(),
                Err(err) => err.to_string(),
            };
            assert_eq!(got, *want, "share {at} with {change}");
        }
    }

    #[test]
    fn enough_shares_make_the_key_in_any_order() {
        check(5, 3, &[(4, 0, "1"), (0, 0, "2"), (2, 0, "key true")]);
        check(1, 1, &[(0, 0, "key true")]);
    }

    #[test]
    fn a_repeated_share_is_refused_and_progress_stays() {
        check(3, 2, &[(1, 0, "1"), (1, 0, REPEATED), (0, 0, "key true")]);
    }

    #[test]
    fn a_wrong_share_shows_only_at_the_threshold_and_starts_over() {
        check(5, 3, &[(0, 0, "1"), (1, 1, "2"), (2, 0, "key false"), (0, 0, "1")]);
        check(1, 1, &[(0, 1, "key false"), (0, 0, "key true")]);
    }

    #[test]
    fn two_shares_of_one_number_are_no_set() {
        check(3, 2, &[(1, 0, "1"), (1, 1, "wrong"), (1, 0, "1"), (2, 0, "key true")]);
    }

    #[test]
    fn shares_of_another_size_are_no_set() {
        let mut collected = Collected::default();
        let of = |size| Share::from_bytes(Zeroizing::new(vec![1; size]));
        assert_eq!(collected.offer(of(33), 2, "test", "wrong"), Ok(None));
        assert_eq!(collected.offer(of(32), 2, "test", "wrong"), Err(AttemptError::WrongShares("wrong")));
        assert_eq!(collected.progress(), 0);
    }

    #[test]
    fn shares_come_as_hex_or_base64() {
        for (text, is_good) in [
            ("00".repeat(33), true),
            (format!(" {}\n", "ab".repeat(32)), true),
            ("odjbE36h9v/v9gtYBKp6NEXWOaKIuvYFgzKTLkXEuwfI".to_owned(), true),
            ("00".to_owned(), false),
            ("00".repeat(34), false),
            ("zz!".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(share(&text).is_ok(), is_good, "{text:?}");
        }
    }

    #[test]
    fn a_share_is_for_one_attempt() {
        assert_eq!(check_nonce("rekey", "a", "a"), Ok(()));
        assert_eq!(
            check_nonce("rekey", "a", "").unwrap_err().to_string(),
            "incorrect nonce supplied; nonce for this rekey operation is \"a\""
        );
    }
}
