//! Where server programs come from.
//!
//! Order: what the machine has, then Debian's packages (root only), then pinned wheels in a folder of the user's
//! cache. Postgres and Redis are looked for one by one: a machine may have either. Every place that does not serve
//! leaves a line that says why, so that the error of the last one tells the whole story.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Error, REDIS_PROGRAM_VARIABLE, install,
    place::open_to_all,
    process::{plain_environment, run},
};

/// The oldest Postgres that the services are tested with.
const POSTGRES_OLDEST: u32 = 15;
/// The oldest line of PgBouncer: any 1.x.
const PGBOUNCER_OLDEST: u32 = 1;
/// The oldest Redis that has Functions.
const REDIS_OLDEST: u32 = 7;
/// Where Debian keeps the server programs, which are not on PATH there.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";

/// A place where server programs come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// PATH, and the folders of Debian's Postgres packages.
    Path,
    /// Debian's packages, installed by apt-get where this process is root.
    Debian,
    /// Pinned wheels, installed by pip into a folder of the user's cache.
    Wheels,
}

impl Source {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Path, Self::Debian, Self::Wheels];

    /// The source of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name)
    }

    /// Its name in options and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Debian => "debian",
            Self::Wheels => "wheels",
        }
    }
}

/// The programs of one Postgres.
#[derive(Clone, Debug)]
pub(crate) struct PostgresPrograms {
    pub(crate) postgres: PathBuf,
    pub(crate) initdb: PathBuf,
}

/// Finds or installs a Postgres.
pub(crate) fn postgres(sources: &[Source]) -> Result<PostgresPrograms, Error> {
    let folders = |source| -> Result<Vec<PathBuf>, String> {
        match source {
            Source::Path => Ok(postgres_folders()),
            Source::Debian => {
                install::debian("postgresql")?;
                Ok(postgres_folders())
            }
            Source::Wheels => install::wheels().map(|wheels| vec![wheels.postgres]),
        }
    };
    let accept = |folder: &Path| {
        let programs = PostgresPrograms { postgres: folder.join("postgres"), initdb: folder.join("initdb") };
        usable(&programs.initdb)?;
        new_enough(&programs.postgres, "PostgreSQL) ", POSTGRES_OLDEST)?;
        Ok(programs)
    };
    search("Postgres (15 or newer)", sources, folders, accept)
}

/// Finds or installs a Redis, or a Valkey, which speaks the same. One that the environment names is taken as it is.
pub(crate) fn redis(sources: &[Source]) -> Result<PathBuf, Error> {
    let programs = |source| -> Result<Vec<PathBuf>, String> {
        match source {
            Source::Path => Ok(redis_programs()),
            Source::Debian => {
                install::debian("redis-server")?;
                Ok(redis_programs())
            }
            Source::Wheels => install::wheels().map(|wheels| vec![wheels.redis]),
        }
    };
    let named = std::env::var_os(REDIS_PROGRAM_VARIABLE).filter(|value| !value.is_empty());
    if let Some(program) = named.map(PathBuf::from) {
        let unusable = |reason| Error::NotFound {
            what: REDIS_PROGRAM_VARIABLE,
            tried: vec![format!("{}: {reason}", program.display())],
        };
        return usable(&program).map(|()| program.clone()).map_err(unusable);
    }
    let accept = |program: &Path| {
        new_enough(program, "server v=", REDIS_OLDEST)?;
        Ok(program.to_path_buf())
    };
    search("Redis or Valkey (7 or newer)", sources, programs, accept)
}

/// Finds or installs a PgBouncer; no wheel has one.
pub(crate) fn pgbouncer(sources: &[Source]) -> Result<PathBuf, Error> {
    let programs = |source| -> Result<Vec<PathBuf>, String> {
        match source {
            Source::Path => Ok(pgbouncer_programs()),
            Source::Debian => {
                install::debian("pgbouncer")?;
                Ok(pgbouncer_programs())
            }
            Source::Wheels => Err("no wheel has it".to_owned()),
        }
    };
    let accept = |program: &Path| {
        new_enough(program, "PgBouncer ", PGBOUNCER_OLDEST)?;
        Ok(program.to_path_buf())
    };
    search("PgBouncer", sources, programs, accept)
}

fn search<T>(
    what: &'static str,
    sources: &[Source],
    candidates: impl Fn(Source) -> Result<Vec<PathBuf>, String>,
    accept: impl Fn(&Path) -> Result<T, String>,
) -> Result<T, Error> {
    let mut tried = Vec::new();
    for source in sources {
        match candidates(*source) {
            Err(reason) => tried.push(format!("{}: {reason}", source.name())),
            Ok(paths) if paths.is_empty() => tried.push(format!("{}: none there", source.name())),
            Ok(paths) => {
                for path in paths {
                    match accept(&path) {
                        Ok(found) => {
                            tracing::debug!(what, source = source.name(), path = %path.display(), "found");
                            return Ok(found);
                        }
                        Err(reason) => tried.push(format!("{}: {}: {reason}", source.name(), path.display())),
                    }
                }
            }
        }
    }
    Err(Error::NotFound { what, tried })
}

/// Folders that hold a `postgres`: those on PATH, then Debian's, newest first.
fn postgres_folders() -> Vec<PathBuf> {
    let on_path = path_folders().into_iter().filter(|folder| folder.join("postgres").is_file());
    // a link on PATH (as wrappers make) need not have initdb beside it: what it points to does
    let on_path = on_path
        .filter_map(|folder| folder.join("postgres").canonicalize().ok()?.parent().map(Path::to_owned));
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN_POSTGRES)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, folder)| folder.join("postgres").is_file())
        .collect();
    debian.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut folders: Vec<PathBuf> = on_path.chain(debian.into_iter().map(|(_, folder)| folder)).collect();
    folders.dedup();
    folders
}

fn redis_programs() -> Vec<PathBuf> {
    let folders = path_folders();
    let in_folders = |name: &'static str| folders.iter().map(move |folder| folder.join(name));
    in_folders("redis-server").chain(in_folders("valkey-server")).filter(|path| path.is_file()).collect()
}

fn pgbouncer_programs() -> Vec<PathBuf> {
    // Debian's folder, which is not on every PATH
    let folders = path_folders().into_iter().chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join("pgbouncer")).filter(|path| path.is_file()).collect()
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

fn usable(program: &Path) -> Result<(), String> {
    if !program.is_file() {
        return Err(format!("{} is missing", program.display()));
    }
    if nix::unistd::Uid::effective().is_root() && !open_to_all(program) {
        return Err("not open to the unprivileged user of the servers".to_owned());
    }
    Ok(())
}

fn new_enough(program: &Path, before: &str, oldest: u32) -> Result<(), String> {
    usable(program)?;
    let mut command = Command::new(program);
    plain_environment(command.arg("--version"));
    let output = run(&mut command, "").map_err(|error| error.to_string())?;
    match major(&output, before) {
        Some(version) if version >= oldest => Ok(()),
        Some(version) => Err(format!("version {version} is older than {oldest}")),
        None => Err(format!("unknown version: {}", output.trim())),
    }
}

fn major(output: &str, before: &str) -> Option<u32> {
    let rest = output.split_once(before)?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let cases = [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", "PostgreSQL) ", Some(15)),
            ("postgres (PostgreSQL) 19beta1", "PostgreSQL) ", Some(19)),
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1", "server v=", Some(7)),
            ("Valkey server v=9.1.2 sha=00000000:0", "server v=", Some(9)),
            ("PgBouncer 1.18.0\nlibevent 2.1.12-stable", "PgBouncer ", Some(1)),
            ("something else", "server v=", None),
        ];
        for (output, before, expected) in cases {
            assert_eq!(major(output, before), expected, "{output}");
        }
    }

    #[test]
    fn an_error_tells_every_place() {
        let candidates = |source: Source| match source {
            Source::Path => Ok(vec![PathBuf::from("/old/server")]),
            Source::Debian => Err("not root".to_owned()),
            Source::Wheels => Ok(Vec::new()),
        };
        let accept = |_: &Path| Err::<(), _>("version 6 is older than 7".to_owned());
        let error = search("Redis", &Source::ALL, candidates, accept).unwrap_err().to_string();
        let expected = "no usable Redis; tried: path: /old/server: version 6 is older than 7; debian: not root; \
                        wheels: none there";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_program_that_is_not_there() {
        assert!(
            new_enough(Path::new("/nowhere/redis-server"), "server v=", 7)
                .unwrap_err()
                .contains("is missing")
        );
    }

    #[test]
    fn names_of_sources() {
        for source in Source::ALL {
            assert_eq!(Source::named(source.name()), Some(source));
        }
        assert_eq!(Source::named("docker"), None);
    }
}
