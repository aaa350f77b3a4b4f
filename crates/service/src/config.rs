//! Configuration: documented defaults compiled into the binary, then one file, then the environment.
//!
//! A section of the file belongs to one part of the process (`[metering]`, `[ledger]`, `[telemetry]`, …);
//! `DRAWDOWN_LEDGER__SERVER__LISTEN` is `listen` in `[ledger.server]`. Values are checked where they are
//! read, by types; what needs two values is checked by `validate`. All problems are found before the
//! first port is bound, and all are told at once: a value that does not fit is noted, left out and the
//! rest is read on.

mod checked;
mod secret;
mod sources;

use std::{fmt, path::PathBuf};

use figment::{
    Figment,
    error::Kind,
    providers::{Format, Toml},
    value::{Dict, Value},
};
use serde::de::DeserializeOwned;

pub use checked::{Count, ListenAddress, Millis, Url};
pub use secret::Secret;
pub use sources::Sources;

/// Every variable of the environment that is read begins with this.
pub const ENV_PREFIX: &str = "DRAWDOWN_";
/// At most this many values of one section are named as wrong.
pub const PROBLEMS_MAX: usize = 100;

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The dotted path of the value, such as `ledger.server.listen`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

/// Why a section was not read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can not be read.
    #[error("can not read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        detail: String,
    },
    /// Values that do not fit.
    #[error("{} values of the configuration are wrong", .0.len())]
    Invalid(Vec<Problem>),
}

/// Collects what is wrong with a section while it is checked.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

// === impl Problem ===

impl Problem {
    /// A problem with one value.
    pub fn new(field: impl Into<String>, description: impl fmt::Display) -> Self {
        Self { field: field.into(), description: description.to_string() }
    }

    /// The same problem, seen from the section around it.
    #[must_use]
    pub fn within(mut self, section: &str) -> Self {
        self.field = format!("{section}.{}", self.field);
        self
    }
}

impl ConfigError {
    /// Every problem, one a line.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Unreadable { source, .. } => vec![Problem::new(self.to_string(), source)],
            Self::Syntax { path, detail } => vec![Problem::new(path.display().to_string(), detail)],
            Self::Invalid(problems) => problems.clone(),
        }
    }
}

// === impl Problems ===

impl Problems {
    /// Nothing wrong yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more problem.
    pub fn push(&mut self, field: &str, description: impl fmt::Display) {
        self.0.push(Problem::new(field, description));
    }

    /// The value, or `None` and a problem.
    pub fn field<T, E: fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.push(field, error)).ok()
    }

    /// A problem unless the condition holds.
    pub fn ensure(&mut self, condition: bool, field: &str, description: impl fmt::Display) {
        if !condition {
            self.push(field, description);
        }
    }

    /// The checked value of a nested section, or `None` and its problems under the section's name.
    pub fn section<T>(&mut self, section: &str, result: Result<T, Vec<Problem>>) -> Option<T> {
        result
            .map_err(|problems| self.0.extend(problems.into_iter().map(|problem| problem.within(section))))
            .ok()
    }

    /// The checked value, or everything that was wrong.
    ///
    /// # Errors
    /// The problems.
    pub fn finish<T>(self, checked: Option<T>) -> Result<T, Vec<Problem>> {
        match checked {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

/// Reads one section: `defaults` (the content of the section as TOML), over it the file, over it the
/// environment. `defaults` has to be complete: it is also the documentation.
///
/// # Errors
/// Every value that does not fit, by its dotted path.
pub fn load<T: DeserializeOwned>(defaults: &str, sources: &Sources, section: &str) -> Result<T, ConfigError> {
    let defaults = Figment::from(Toml::string(defaults));
    let sources::Given { values: mut given, mut texts } = sources.section(section)?;
    let mut problems = Vec::new();
    loop {
        let figment = defaults.clone().merge(figment::providers::Serialized::defaults(&given));
        let error = match figment.extract::<T>() {
            Ok(value) if problems.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(error) => error,
        };
        let path = path_of(&error);
        if is_text_wanted(&error.kind)
            && let Some(text) = texts.remove(&path)
        {
            sources::insert(&mut given, &path, Value::from(text));
            continue;
        }
        problems.push(Problem::new(format!("{section}.{}", path.join(".")), describe(&error.kind)));
        // A value that was not given but is wrong comes from the defaults: reading on would not end.
        if problems.len() >= PROBLEMS_MAX || !remove(&mut given, &path) {
            break;
        }
    }
    Err(ConfigError::Invalid(problems))
}

fn path_of(error: &figment::Error) -> Vec<String> {
    let mut path = error.path.clone();
    if let Kind::MissingField(name) = &error.kind {
        path.push(name.to_string());
    }
    path
}

/// A number from the environment where a text is asked for is the text.
fn is_text_wanted(kind: &Kind) -> bool {
    matches!(kind, Kind::InvalidType(_, expected) if expected.contains("string"))
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::UnknownField(_, known) => format!("is no known setting; known here: {}", known.join(", ")),
        Kind::MissingField(_) => "has to be set".to_owned(),
        Kind::UnknownVariant(name, known) => format!("{name:?} is none of {}", known.join(", ")),
        Kind::InvalidType(found, expected) if expected.starts_with("struct ") => {
            format!("has to be a section, not {found}")
        }
        other => other.to_string(),
    }
}

fn remove(given: &mut Dict, path: &[String]) -> bool {
    match path {
        [] => false,
        [last] => given.remove(last).is_some(),
        [first, rest @ ..] => match given.get_mut(first) {
            Some(Value::Dict(_, inner)) => remove(inner, rest),
            // A plain value where a section belongs.
            Some(_) => given.remove(first).is_some(),
            None => false,
        },
    }
}

#[cfg(test)]
mod tests;
