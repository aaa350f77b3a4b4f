//! Names that callers choose: slugs, client ids, dimension names. Checked once, cheap to clone.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// Why a name was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters.
    #[error("is empty")]
    Empty,
    /// Too many bytes.
    #[error("has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// What it has.
        len: usize,
        /// What it may have.
        max: usize,
    },
    /// A character that is not allowed, or not allowed there.
    #[error("has {found:?} at byte {at}; allowed: {allowed}")]
    Character {
        /// The character.
        found: char,
        /// Its byte offset.
        at: usize,
        /// What would be right.
        allowed: &'static str,
    },
}

fn check(
    text: &str,
    max: usize,
    allowed: &'static str,
    fits: impl Fn(usize, char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > max {
        return Err(NameError::TooLong { len: text.len(), max });
    }
    match text.char_indices().find(|(at, found)| !fits(*at, *found)) {
        Some((at, found)) => Err(NameError::Character { found, at, allowed }),
        None => Ok(()),
    }
}

fn slug_char(at: usize, c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || (at > 0 && matches!(c, '-' | '_' | '.'))
}

fn client_char(_: usize, c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~')
}

fn text_char(_: usize, c: char) -> bool {
    !c.is_control()
}

const SLUG_ALLOWED: &str = "a-z and 0-9, then also '-', '_' and '.'";
const CLIENT_ALLOWED: &str = "A-Z, a-z, 0-9, '-', '_', '.' and '~'";
const TEXT_ALLOWED: &str = "all but control characters";

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $max:literal, $allowed:expr, $fits:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The most bytes it may have.
            pub const MAX_LEN: usize = $max;

            /// Checks and keeps `text`.
            ///
            /// # Errors
            /// [`NameError`], naming what is wrong.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check(text, $max, $allowed, $fits)?;
                Ok(Self(text.into()))
            }

            /// As text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

names! {
    /// A short lower-case name that people choose, such as the name of a rate card.
    Slug, 64, SLUG_ALLOWED, slug_char;
    /// The name of a meter, such as `model-derivative.complex-job`.
    MeterSlug, 64, SLUG_ALLOWED, slug_char;
    /// The name of a dimension of usage, such as `region`.
    DimensionName, 32, SLUG_ALLOWED, slug_char;
    /// What gateways meter by: the public half of a credential. Made by the system (D49); a gateway
    /// may send others, which stay unattributed (D25).
    ClientId, 64, CLIENT_ALLOWED, client_char;
    /// Who names an event: the `source` of `CloudEvents`.
    EventSource, 256, TEXT_ALLOWED, text_char;
    /// The id of an event, each once for its source.
    EventId, 256, TEXT_ALLOWED, text_char;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_are_kept_as_they_are() {
        for text in ["a", "web.call", "model-derivative.complex-job", "0x", &"a".repeat(64)] {
            assert_eq!(MeterSlug::new(text).map(|name| name.to_string()), Ok(text.to_owned()));
        }
        assert!(ClientId::new("client_01J2~x.y").is_ok());
    }

    #[test]
    fn bad_names_say_where() {
        assert_eq!(MeterSlug::new(""), Err(NameError::Empty));
        assert_eq!(MeterSlug::new(&"a".repeat(65)), Err(NameError::TooLong { len: 65, max: 64 }));
        assert_eq!(
            MeterSlug::new("Web"),
            Err(NameError::Character { found: 'W', at: 0, allowed: SLUG_ALLOWED })
        );
        assert_eq!(MeterSlug::new(".a").map(drop).map_err(|e| e.to_string().contains("byte 0")), Err(true));
        assert_eq!(
            ClientId::new("a b"),
            Err(NameError::Character { found: ' ', at: 1, allowed: CLIENT_ALLOWED })
        );
    }
}
