//! Where settings come from: a file, read once, and the environment, handed in so that tests need none.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Profile,
    providers::{Format, Toml},
    value::{Dict, Value},
};

use zeroize::{Zeroize, Zeroizing};

use super::{ConfigError, ENV_PREFIX, Problem};

/// The file's content and the variables that matter. Some of it is secret: it is not printed, and wiped when dropped.
#[derive(Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    content: Dict,
    environment: BTreeMap<String, String>,
    overrides: Vec<(String, Vec<String>, String)>,
}

/// What is given for one section.
pub(super) struct Given {
    /// The values, typed as far as they can be without knowing what is asked for.
    pub(super) values: Dict,
    /// What came as text, by its path.
    pub(super) texts: BTreeMap<Vec<String>, String>,
}

impl Sources {
    /// Defaults only.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// From a file, if any, and the environment of this process.
    ///
    /// # Errors
    /// The file can not be read or is not TOML.
    pub fn of_process(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::new(
            file,
            std::env::vars_os().filter_map(|(k, v)| k.into_string().ok().zip(v.into_string().ok())),
        )
    }

    /// From a file, if any, and variables.
    ///
    /// # Errors
    /// The file can not be read or is not TOML.
    pub fn new(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let content = match file {
            None => Dict::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map(Zeroizing::new)
                    .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
                parse(path, &text)?
            }
        };
        let environment = variables.into_iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
        Ok(Self { file: file.map(Path::to_owned), content, environment, overrides: Vec::new() })
    }

    /// The file these come from.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Sections of the file that nobody reads.
    #[must_use]
    pub fn unknown_sections(&self, known: &[&str]) -> Vec<Problem> {
        let unknown = self.content.keys().filter(|section| !known.contains(&section.as_str()));
        unknown
            .map(|section| Problem::new(section, format!("is no known section; known: {}", known.join(", "))))
            .collect()
    }

    /// Sets a value over the file and the environment: for what a command line or a sandbox decides.
    #[must_use]
    pub fn with(mut self, section: &str, path: &str, value: impl Into<String>) -> Self {
        let path = path.split('.').map(str::to_owned).collect();
        self.overrides.push((section.to_owned(), path, value.into()));
        self
    }

    /// Whether a value is given by file or environment.
    #[must_use]
    pub fn has(&self, section: &str, path: &str) -> bool {
        let Ok(given) = self.section(section) else { return false };
        let mut keys = path.split('.');
        let first = keys.next().and_then(|key| given.values.get(key));
        keys.try_fold(first, |value, key| match value {
            Some(Value::Dict(_, inner)) => Some(inner.get(key)),
            _ => None,
        })
        .is_some_and(|value| value.is_some())
    }

    /// The file's table with the environment over it, and over that what was set by [`Sources::with`].
    pub(super) fn section(&self, section: &str) -> Result<Given, ConfigError> {
        let mut values = match self.content.get(section) {
            None => Dict::new(),
            Some(Value::Dict(_, table)) => table.clone(),
            Some(_) => {
                let problem = Problem::new(section, format!("has to be a section: [{section}]"));
                return Err(ConfigError::Invalid(vec![problem]));
            }
        };
        let prefix = format!("{ENV_PREFIX}{}__", section.to_ascii_uppercase());
        let environment = self.environment.iter().filter_map(|(name, text)| {
            let path = name.strip_prefix(&prefix)?.split("__").map(str::to_ascii_lowercase).collect();
            Some((path, text))
        });
        let overrides = self
            .overrides
            .iter()
            .filter(|(of, ..)| of == section)
            .map(|(_, path, text)| (path.clone(), text));
        let texts: BTreeMap<Vec<String>, String> =
            environment.chain(overrides).map(|(path, text)| (path, text.clone())).collect();
        for (path, text) in &texts {
            insert(&mut values, path, typed(text));
        }
        Ok(Given { values, texts })
    }
}

impl Drop for Sources {
    /// What figment copied on the way is not reached from here.
    fn drop(&mut self) {
        wipe(&mut self.content);
        self.environment.values_mut().for_each(Zeroize::zeroize);
        self.overrides.iter_mut().for_each(|(.., text)| text.zeroize());
    }
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("file", &self.file).finish_non_exhaustive()
    }
}

fn wipe(values: &mut Dict) {
    for value in values.values_mut() {
        match value {
            Value::String(_, text) => text.zeroize(),
            Value::Dict(_, inner) => wipe(inner),
            Value::Array(_, values) => {
                for value in values {
                    if let Value::String(_, text) = value {
                        text.zeroize();
                    }
                }
            }
            Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) => {}
        }
    }
}

/// Whole numbers, truth values and lists are read as such; a secret that happens to begin like a number
/// (`007`, `1e9`) stays text.
fn typed(text: &str) -> Value {
    let value = text.parse::<Value>().unwrap_or_else(|never| match never {});
    let kept = match &value {
        Value::Num(_, number) => {
            number.to_u128().is_some_and(|n| n.to_string() == text)
                || number.to_i128().is_some_and(|n| n.to_string() == text)
        }
        Value::Bool(..) | Value::Array(..) | Value::Dict(..) => true,
        _ => false,
    };
    if kept { value } else { Value::from(text) }
}

fn parse(path: &Path, text: &str) -> Result<Dict, ConfigError> {
    let figment = Figment::from(Toml::string(text)).select(Profile::Default);
    figment.extract::<Dict>().map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        detail: in_one_line(&error.kind.to_string()),
    })
}

/// Where and why, without the drawing between them.
fn in_one_line(message: &str) -> String {
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next_back()) {
        (Some(place), Some(cause)) => format!("{place}: {cause}"),
        (only, _) => only.unwrap_or_default().to_owned(),
    }
}

pub(super) fn insert(given: &mut Dict, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => {
            given.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = given.entry(first.clone()).or_insert_with(|| Value::from(Dict::new()));
            if !matches!(inner, Value::Dict(..)) {
                *inner = Value::from(Dict::new());
            }
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}
