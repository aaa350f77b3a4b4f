//! What is wrong with input: one stable reason and every offending field at once, so that a caller
//! fixes all of it in one go.

use std::fmt;

/// The most fields that one fault names.
const FIELDS_MAX: usize = 64;

/// One offending field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// Path of the field, such as `quantities[3]`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

impl FieldFault {
    /// `field` is wrong as `description` says.
    #[must_use]
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.description)
    }
}

/// Why a frame, or a definition, was refused as a whole. Permanent: the same bytes fail again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {} offending field(s)", fields.len())]
pub struct FrameFault {
    /// One of [`crate::reason`].
    pub reason: &'static str,
    /// The offending fields; at least one.
    pub fields: Vec<FieldFault>,
}

impl FrameFault {
    /// Refused for `reason`, because of these fields; of very many, the first are kept.
    #[must_use]
    pub fn new(reason: &'static str, mut fields: Vec<FieldFault>) -> Self {
        fields.truncate(FIELDS_MAX);
        Self { reason, fields }
    }

    /// Refused for `reason`, because of one field.
    #[must_use]
    pub fn one(reason: &'static str, field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { reason, fields: vec![FieldFault::new(field, description)] }
    }
}
