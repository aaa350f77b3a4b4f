//! The name of a peer: `drawdown://NAME` in its certificate.

use std::{fmt, sync::Arc};

use rustls::pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

/// What the URI of a name begins with.
pub const SCHEME: &str = "drawdown://";
const CHARS_MAX: usize = 63;

/// A name: 1 to 63 lower-case letters, digits and hyphens. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a certificate names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a certificate of X.509 version 3.
    #[error("the certificate can not be read")]
    Unreadable,
    /// No URI `drawdown://…` among the subject alternative names.
    #[error("the certificate has no name drawdown://NAME")]
    Missing,
    /// More than one: nobody can say which is meant.
    #[error("the certificate has several names drawdown://NAME")]
    Several,
    /// Not made of what names are made of.
    #[error("the name in the certificate is not 1 to 63 of a-z, 0-9 and '-'")]
    Malformed,
}

impl Name {
    /// A name from its text, without the scheme.
    ///
    /// # Errors
    /// [`NameError::Malformed`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        let fits = (1..=CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if fits { Ok(Self(text.into())) } else { Err(NameError::Malformed) }
    }

    /// The one name of a certificate. Nothing is verified here.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, NameError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NameError::Unreadable)?;
        let names = parsed.subject_alternative_name().map_err(|_| NameError::Unreadable)?;
        let mut ours =
            names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix(SCHEME),
                _ => None,
            });
        match (ours.next(), ours.next()) {
            (None, _) => Err(NameError::Missing),
            (Some(name), None) => Self::new(name),
            (Some(_), Some(_)) => Err(NameError::Several),
        }
    }

    /// As text, without the scheme.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it stands in certificates.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issue::{Authority, Profile};

    fn named(uris: &[&str]) -> Result<Name, NameError> {
        let authority = Authority::new("test").unwrap();
        let issued = authority
            .issue(&Profile { uris: uris.iter().map(ToString::to_string).collect(), ..Profile::client("x") });
        Name::of(&issued.unwrap().der())
    }

    #[test]
    fn a_certificate_has_one_name_or_none() {
        assert_eq!(named(&["drawdown://metering"]).map(|name| name.to_string()), Ok("metering".to_owned()));
        let with_others = named(&["spiffe://a/b", "drawdown://metering", "https://x"]);
        assert_eq!(with_others.map(|name| name.uri()), Ok("drawdown://metering".to_owned()));
        assert_eq!(named(&[]), Err(NameError::Missing));
        assert_eq!(named(&["https://metering"]), Err(NameError::Missing));
        assert_eq!(named(&["drawdown://a", "drawdown://b"]), Err(NameError::Several));
        for name in ["", "a/b", "A", "metering?x", "a b", "metering.", &"a".repeat(64)] {
            assert_eq!(named(&[&format!("drawdown://{name}")]), Err(NameError::Malformed), "{name}");
        }
    }

    #[test]
    fn what_is_no_certificate_names_nobody() {
        assert_eq!(Name::of(&CertificateDer::from_slice(b"0")), Err(NameError::Unreadable));
    }
}
