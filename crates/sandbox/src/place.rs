//! Where the servers keep their files, and as whom they run.
//!
//! Shape: `<root>/postgres/{data,log,secret}` and `<root>/redis/{data,log,secret,redis.conf}`. A given data folder
//! is kept and locked (`<root>/lock`); without one the root is a fresh folder that goes with the sandbox.
//! Started by root, the servers run as an unprivileged user (Postgres refuses anything else), so every folder
//! above the root must let that user pass.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read, Write},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::unistd::{Gid, Uid, User, chown};

use crate::{
    Error,
    process::{wait_until, working_in},
};

/// How long servers of an earlier run, whose parent was killed, may take until they are gone.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(15);
/// Users that own nothing of worth, in the order in which they are tried.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// The unprivileged user of the servers, where this process is root.
#[derive(Clone, Debug)]
pub(crate) struct RunAs {
    uid: Uid,
    gid: Gid,
    pub(crate) name: String,
}

impl RunAs {
    pub(crate) fn apply(&self, command: &mut Command) {
        command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
    }

    fn may_enter(&self, folder: &Path) -> bool {
        fs::metadata(folder).is_ok_and(|meta| {
            let mode = meta.mode();
            let bit = if meta.uid() == self.uid.as_raw() {
                0o100
            } else if meta.gid() == self.gid.as_raw() {
                0o010
            } else {
                0o001
            };
            mode & bit != 0
        })
    }

    fn may_reach(&self, path: &Path) -> Result<(), Error> {
        match path.ancestors().skip(1).find(|folder| !self.may_enter(folder)) {
            None => Ok(()),
            Some(folder) => Err(Error::Unreachable { user: self.name.clone(), path: folder.to_path_buf() }),
        }
    }
}

/// Whether any user can get at `path`: what root may read need not be open to the user of the servers.
pub(crate) fn open_to_all(path: &Path) -> bool {
    path.ancestors().skip(1).all(|folder| fs::metadata(folder).is_ok_and(|meta| meta.mode() & 0o001 != 0))
}

/// The root folder of one sandbox.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    temporary: bool,
    run_as: Option<RunAs>,
    /// Held as long as the sandbox lives.
    _lock: Option<File>,
}

impl Place {
    /// A kept folder where `data_dir` names one, else a fresh one.
    pub(crate) fn open(data_dir: Option<&Path>) -> Result<Self, Error> {
        match data_dir {
            Some(folder) => Self::kept(folder),
            None => Self::fresh(),
        }
    }

    fn kept(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::io(format!("create {}", folder.display())))?;
        let root = folder.canonicalize().map_err(Error::io(format!("find {}", folder.display())))?;
        let run_as = run_as(&root.join("postgres"))?;
        if let Some(user) = &run_as {
            user.may_reach(&root.join("postgres"))?;
        }
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io(format!("open {}", path.display())))?;
        if lock.try_lock().is_err() {
            return Err(Error::InUse { path: root, holder: "another drawdown process".to_owned() });
        }
        Ok(Self { root, temporary: false, run_as, _lock: Some(lock) })
    }

    fn fresh() -> Result<Self, Error> {
        let run_as = run_as(Path::new(""))?;
        let bases = [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
        let reachable =
            |base: &&PathBuf| run_as.as_ref().is_none_or(|user| user.may_reach(&base.join("x")).is_ok());
        let base = bases.iter().find(reachable).unwrap_or(&bases[1]);
        let root = tempfile::Builder::new()
            .prefix("drawdown-")
            .tempdir_in(base)
            .map_err(Error::io(format!("create a folder in {}", base.display())))?
            .keep();
        let root = root.canonicalize().map_err(Error::io(format!("find {}", root.display())))?;
        let place = Self { root, temporary: true, run_as, _lock: None };
        place.give(&place.root)?;
        Ok(place)
    }

    pub(crate) fn temporary(&self) -> bool {
        self.temporary
    }

    pub(crate) fn run_as(&self) -> Option<&RunAs> {
        self.run_as.as_ref()
    }

    /// The folder of one server, made where it does not exist yet; waits until servers that an earlier, killed
    /// process left behind have gone from it.
    pub(crate) fn server(&self, name: &str) -> Result<PathBuf, Error> {
        let folder = self.root.join(name);
        self.folder(&folder)?;
        let data = folder.join("data");
        let mut holders = Vec::new();
        let free = wait_until(LEFTOVER_LIMIT, || {
            holders = working_in(&data);
            holders.is_empty()
        });
        if free {
            return Ok(folder);
        }
        let holder = holders.iter().map(|pid| format!("process {pid}")).collect::<Vec<_>>().join(", ");
        Err(Error::InUse { path: data, holder })
    }

    /// A folder that only the user of the servers may enter.
    pub(crate) fn folder(&self, folder: &Path) -> Result<(), Error> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => self.give(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(Error::io(format!("create {}", folder.display()))(error)),
        }
    }

    /// Writes a file that only the user of the servers may read.
    pub(crate) fn private_file(&self, path: &Path, content: &str) -> Result<(), Error> {
        let write = || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            options.create(true).write(true).truncate(true).mode(0o600);
            options.open(path)?.write_all(content.as_bytes())
        };
        write().map_err(Error::io(format!("write {}", path.display())))?;
        self.give(path)
    }

    /// A copy of a program that the user of the servers may run, wherever the original lies.
    pub(crate) fn program(&self, original: &Path) -> Result<PathBuf, Error> {
        let copy = self.root.join("program");
        fs::copy(original, &copy).map_err(Error::io(format!("copy {}", original.display())))?;
        self.give(&copy)?;
        Ok(copy)
    }

    /// The password of one server: drawn once, kept beside its data.
    pub(crate) fn secret(&self, folder: &Path) -> Result<String, Error> {
        let path = folder.join("secret");
        if let Ok(known) = fs::read_to_string(&path) {
            return Ok(known.trim().to_owned());
        }
        let mut bytes = [0_u8; 16];
        File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut bytes))
            .map_err(Error::io("read /dev/urandom"))?;
        let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.private_file(&path, &secret)?;
        Ok(secret)
    }

    fn give(&self, path: &Path) -> Result<(), Error> {
        let Some(user) = &self.run_as else { return Ok(()) };
        chown(path, Some(user.uid), Some(user.gid)).map_err(Error::errno(format!(
            "give {} to {}",
            path.display(),
            user.name
        )))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.root)
        {
            tracing::warn!(path = %self.root.display(), %error, "cannot remove the sandbox's folder");
        }
    }
}

/// Nobody special for an ordinary user; for root the owner of existing data, else an unprivileged user.
fn run_as(existing: &Path) -> Result<Option<RunAs>, Error> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let owner =
        fs::metadata(existing).ok().map(|meta| Uid::from_raw(meta.uid())).filter(|uid| !uid.is_root());
    let known = owner.and_then(|uid| User::from_uid(uid).ok().flatten());
    let user = known.or_else(|| UNPRIVILEGED.iter().find_map(|name| User::from_name(name).ok().flatten()));
    user.map(|user| Some(RunAs { uid: user.uid, gid: user.gid, name: user.name })).ok_or(Error::NoUser)
}
