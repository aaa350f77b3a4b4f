//! The contracts in `proto/`: linted, and never broken.
//!
//! Shape: `proto/baseline.binpb` is the image of the contracts that were accepted last. A check demands that the
//! contracts equal it; accepting new ones demands that they break nobody who was built against the old ones. So a
//! baseline that is in git was compared, link by link, with everything before it, and a shallow clone can check it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};

use crate::machine::{Workspace, run};

const BASELINE: &str = "proto/baseline.binpb";

pub(crate) fn check(workspace: &Workspace, accept: bool) -> anyhow::Result<ExitCode> {
    let buf = install(workspace)?;
    let buf = |arguments: &[&str]| {
        let mut command = workspace.command(&buf);
        command.args(arguments);
        command
    };
    run(&mut buf(&["lint", "proto"]))?;
    let baseline = workspace.root.join(BASELINE);
    if baseline.exists() {
        run(&mut buf(&["breaking", "proto", "--against", BASELINE]))?;
    } else if !accept {
        bail!("{BASELINE} is missing; cargo xtask buf --accept would make it")
    }
    let image = workspace.target.join("contracts.binpb");
    let image_name = image.to_string_lossy();
    run(&mut buf(&["build", "proto", "--exclude-source-info", "--output", &image_name]))?;
    let now = fs::read(&image).with_context(|| format!("read {}", image.display()))?;
    if accept {
        fs::write(&baseline, now).with_context(|| format!("write {BASELINE}"))?;
        println!("buf: accepted");
        return Ok(ExitCode::SUCCESS);
    }
    if fs::read(&baseline).with_context(|| format!("read {BASELINE}"))? != now {
        bail!("the contracts have grown beyond {BASELINE}; cargo xtask buf --accept would be right")
    }
    println!("buf: clean, and as accepted");
    Ok(ExitCode::SUCCESS)
}

/// The pinned npm packages of `tests/npm`, in a folder of the build. Made anew only when the lock changes.
pub(crate) fn install(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let folder = workspace.target.join("npm");
    let buf = folder.join("node_modules/.bin/buf");
    let pinned = workspace.root.join("tests/npm");
    let (lock, stamp) = (pinned.join("package-lock.json"), folder.join("installed-lock.json"));
    if buf.exists() && same(&lock, &stamp) {
        return Ok(buf);
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let copy = |from: PathBuf, to: &Path| {
        fs::copy(&from, to).with_context(|| format!("copy {}", from.display())).map(drop)
    };
    copy(pinned.join("package.json"), &folder.join("package.json"))?;
    copy(lock.clone(), &folder.join("package-lock.json"))?;
    // not `npm ci`: it wants the programs of every platform in the lock, also of those that a registry has not got
    run(Command::new("npm").args(["install", "--no-audit", "--no-fund"]).current_dir(&folder))?;
    copy(lock, &stamp)?;
    Ok(buf)
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_or_miss() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "x").unwrap();
        fs::write(path("b"), "x").unwrap();
        fs::write(path("c"), "y").unwrap();
        assert!(same(&path("a"), &path("b")));
        assert!(!same(&path("a"), &path("c")));
        assert!(!same(&path("a"), &path("d")));
        assert!(!same(&path("d"), &path("d")));
    }
}
