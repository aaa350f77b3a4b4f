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

use super::{ConfigError, ENV_PREFIX, Problem};

/// The file's content and the variables that matter.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    content: Dict,
    environment: BTreeMap<String, String>,
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
                    .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
                parse(path, &text)?
            }
        };
        let environment = variables.into_iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
        Ok(Self { file: file.map(Path::to_owned), content, environment })
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

    /// What is given for one section: the file's table with the environment over it.
    pub(super) fn section(&self, section: &str) -> Result<Dict, ConfigError> {
        let mut given = match self.content.get(section) {
            None => Dict::new(),
            Some(Value::Dict(_, table)) => table.clone(),
            Some(_) => {
                let problem = Problem::new(section, format!("has to be a section: [{section}]"));
                return Err(ConfigError::Invalid(vec![problem]));
            }
        };
        let prefix = format!("{ENV_PREFIX}{}__", section.to_ascii_uppercase());
        for (name, text) in &self.environment {
            if let Some(path) = name.strip_prefix(&prefix) {
                let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
                // Whatever reads as a number, a truth value or a list is one; all else is text.
                let value = text.parse::<Value>().unwrap_or_else(|never| match never {});
                insert(&mut given, &path, value);
            }
        }
        Ok(given)
    }
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

fn insert(given: &mut Dict, path: &[String], value: Value) {
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
