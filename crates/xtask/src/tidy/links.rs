//! Links of Markdown files to other files of the repository.

use std::path::{Component, Path, PathBuf};

use super::{Finding, Text};

pub(super) fn check(text: &Text, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    if text.extension() != "md" {
        return Vec::new();
    }
    let folder = text.path.parent().unwrap_or_else(|| Path::new(""));
    let mut findings = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        // what stands in backticks is shown, not followed; the text of a link may hold some
        let prose: String = line.split('`').step_by(2).collect();
        for target in targets(&prose) {
            let found = resolve(folder, target).is_some_and(|path| exists(&path));
            if !found {
                let what = format!("a link to {target}, which is not there");
                findings.push(Finding::new(&text.path, number, what, "a file of this repository"));
            }
        }
    }
    findings
}

/// The targets of `[text](target)` that name files.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .filter(|target| {
            !target.contains("://") && !target.starts_with("mailto:") && !target.starts_with('#')
        })
        .filter_map(|target| target.split('#').next())
}

/// From the root of the repository; none where it leads out of it.
fn resolve(folder: &Path, target: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        let known = ["crates/ledger/DESIGN.md", "proto/README.md", "README.md"];
        let exists = |path: &Path| known.iter().any(|name| Path::new(name) == path);
        let cases = [
            ("see [it](DESIGN.md) and [that](../../proto/README.md#reasons)", 0),
            ("see [it](./DESIGN.md), [there](https://example.org/x.md), [here](#top)", 0),
            ("see [it](MISSING.md) and [that](../README.md)", 2),
            ("see [it](../../../README.md)", 1),
            ("see [it](/README.md)", 1),
            ("`[text](x)` is shown, [`x`](y) is not", 1),
            ("```\n[it](MISSING.md)\n```", 0),
        ];
        for (content, expected) in cases {
            let text = Text::new("crates/ledger/README.md", content);
            assert_eq!(check(&text, exists).len(), expected, "{content}");
        }
        assert!(check(&Text::new("crates/a/src/lib.rs", "[it](x)"), exists).is_empty());
    }
}
