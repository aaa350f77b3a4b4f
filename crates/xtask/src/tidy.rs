//! The rules of the house: each is a pure function over texts or over what cargo tells, with a test of its own.
//!
//! A rule that nothing checks is not written down as a rule; a finding says where, what, and what would be right.

mod absence;
mod compatibility;
mod edges;
mod limits;
mod links;
mod migrations;
mod packages;
mod reasons;
mod text;
pub(crate) mod tree;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};

use crate::machine::Workspace;

/// One breach of one rule.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Finding {
    path: PathBuf,
    line: usize,
    what: String,
    right: String,
}

impl Finding {
    fn new(path: impl Into<PathBuf>, line: usize, what: impl Into<String>, right: impl Into<String>) -> Self {
        Self { path: path.into(), line, what: what.into(), right: right.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, what, right } = self;
        write!(formatter, "{}:{line}: {what}; right: {right}", path.display())
    }
}

/// A text file of the repository, with its path from the root.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    path: PathBuf,
    content: String,
}

impl Text {
    #[cfg(test)]
    fn new(path: &str, content: &str) -> Self {
        Self { path: path.into(), content: content.to_owned() }
    }

    fn extension(&self) -> &str {
        self.path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
    }

    /// Numbered from one, as editors do.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.content.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// `cargo xtask tidy`
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let files = tree::files(&workspace.root)?;
    let texts = read(&workspace.root, &files)?;
    let metadata = workspace.metadata()?;
    let members = edges::members(&metadata);
    let packages = packages::external(&metadata);

    let mut findings = tree::check(&workspace.root, &files);
    findings.extend(edges::check(&members));
    findings.extend(packages::licences(&packages));
    findings.extend(packages::duplicates(&packages));
    for text in &texts {
        findings.extend(text::length(text));
        findings.extend(text::banned(text));
        findings.extend(text::header(text));
        findings.extend(limits::inherited(text));
        findings.extend(absence::foreign_schemas(text));
        findings.extend(absence::time_to_live(text));
        findings.extend(links::check(text, |target| workspace.root.join(target).exists()));
    }
    findings.extend(limits::check(&texts));
    findings.extend(reasons::check(&texts));
    findings.extend(migrations::check(&texts));
    findings.extend(compatibility::check(&texts));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len())
    }
    println!(
        "tidy: {} files, {} crates, {} packages, no findings",
        files.len(),
        members.len(),
        packages.len()
    );
    Ok(ExitCode::SUCCESS)
}

fn read(root: &Path, files: &[PathBuf]) -> anyhow::Result<Vec<Text>> {
    let mut texts = Vec::new();
    for path in files {
        let bytes = fs::read(root.join(path)).with_context(|| format!("read {}", path.display()))?;
        // binary files have rules for their size and name only
        if let Ok(content) = String::from_utf8(bytes) {
            texts.push(Text { path: path.clone(), content });
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_would_be_right() {
        let finding = Finding::new("crates/x/src/lib.rs", 7, "a word", "another");
        assert_eq!(finding.to_string(), "crates/x/src/lib.rs:7: a word; right: another");
    }

    #[test]
    fn only_texts_are_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("text"), "a\nb\n").unwrap();
        fs::write(folder.path().join("binary"), [0xff, 0xfe, 0]).unwrap();
        let texts = read(folder.path(), &["binary".into(), "text".into()]).unwrap();
        assert_eq!(texts.len(), 1);
        assert_eq!(texts[0].lines().collect::<Vec<_>>(), [(1, "a"), (2, "b")]);
    }
}
