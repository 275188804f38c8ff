//! [`Rights`]: what a shared access rule allows.

use std::{fmt, ops::BitOr, str::FromStr};

use crate::{Error, ErrorKind};

/// What the holder of a rule's key may do. Combine with `|`.
///
/// ```
/// use arc_cluster_connect::relay::server::Rights;
///
/// # fn main() -> arc_cluster_connect::Result<()> {
/// let both = Rights::LISTEN | Rights::SEND;
/// assert!(both.contains(Rights::SEND));
/// assert_eq!("listen,send".parse::<Rights>()?, both);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// Register as a listener of a hybrid connection.
    pub const LISTEN: Self = Self(1);
    /// Connect to a listener.
    pub const SEND: Self = Self(2);

    /// Whether all of `other` is included.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Rights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromStr for Rights {
    type Err = Error;

    /// Reads `listen`, `send` or both, separated by a comma.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',')
            .map(|word| match word.trim().to_ascii_lowercase().as_str() {
                "listen" => Ok(Self::LISTEN),
                "send" => Ok(Self::SEND),
                _ => Err(
                    Error::new(ErrorKind::InvalidInput, "a right is not known to the relay")
                        .with_help("give 'listen', 'send' or 'listen,send'"),
                ),
            })
            .try_fold(Self(0), |all, one| Ok(all | one?))
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::LISTEN => "LISTEN",
            Self::SEND => "SEND",
            Self(0) => "NONE",
            _ => "LISTEN | SEND",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!("Send".parse::<Rights>().unwrap(), Rights::SEND);
        assert_eq!(
            " listen , send".parse::<Rights>().unwrap(),
            Rights::LISTEN | Rights::SEND
        );
        for text in ["", "manage", "listen,"] {
            assert_eq!(
                text.parse::<Rights>().unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
        }
        assert_eq!(
            format!("{:?}", Rights::LISTEN | Rights::SEND),
            "LISTEN | SEND"
        );
    }

    #[test]
    fn one_right_is_not_the_other() {
        assert!(!Rights::SEND.contains(Rights::LISTEN));
        assert!(!Rights::SEND.contains(Rights::LISTEN | Rights::SEND));
        assert!((Rights::SEND | Rights::LISTEN).contains(Rights::LISTEN));
    }
}
