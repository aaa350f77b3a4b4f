//! Text that nobody is to see.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use zeroize::Zeroizing;

/// A secret, or what may hold one, such as an address with a password: wiped when dropped and never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// For who needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// Takes whatever is there: an error of the deserializer would quote the secret. What is no text becomes one that
    /// who checks the value refuses.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl de::Visitor<'_> for Any {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(text.into())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        Ok("?".into())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Ok("?".into())
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Secret, E> {
        Ok("?".into())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        Ok("?".into())
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Secret, E> {
        Ok("?".into())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        Ok("?".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Section {
        key: Secret,
    }

    #[test]
    fn a_secret_is_neither_printed_nor_quoted() {
        for given in ["planted", "17", "true", "1.5", "170141183460469231731687303715884105728"] {
            let sources = Sources::none().with("it", "key", given);
            let section: Section = load("key = \"\"", &sources, "it").unwrap();
            assert!(!format!("{section:?}").contains(given));
            assert!(["?", given].contains(&section.key.expose()));
        }
        let sources = Sources::none().with("it", "key.planted", "planted");
        let problems = load::<Section>("key = \"\"", &sources, "it").unwrap_err().problems();
        assert!(!problems.iter().any(|problem| problem.description.contains("planted")), "{problems:?}");
        assert!(!format!("{:?}", Sources::none().with("it", "key", "planted")).contains("planted"));
    }
}
