//! What is made of files, made again when they change.
//!
//! [`Reloading::current`] costs a lock held for a clone and is asked by every handshake; [`Reloading::look`] reads the
//! files and blocks. Files that are of no use leave what was made before: [`Reloaded::Broken`] says so each time the
//! files change to something broken, [`Reloaded::StillBroken`] until they are whole again.

use std::sync::{Mutex, PoisonError, RwLock};

use crate::files::{Broken, Files, Mark, Set};

/// How something is made of what was read.
type Make<T> = Box<dyn Fn(&Set) -> Result<T, Broken> + Send + Sync>;

/// Something made of files.
pub struct Reloading<T> {
    files: Files,
    make: Make<T>,
    current: RwLock<T>,
    seen: Mutex<Seen>,
}

/// What the last look found.
struct Seen {
    mark: Option<Mark>,
    broken: bool,
    not_after: Option<i64>,
}

/// What a look found.
#[derive(Debug)]
pub enum Reloaded {
    /// The files are as they were.
    Unchanged,
    /// They changed and are in use.
    Changed,
    /// They changed and are of no use: what was made before stays in use.
    Broken(Broken),
    /// The same as at the look before.
    StillBroken,
}

impl<T: Clone> Reloading<T> {
    /// Reads the files for the first time. Blocks.
    ///
    /// # Errors
    /// [`Broken`]: there is nothing to stay with yet.
    pub fn new(
        files: Files,
        make: impl Fn(&Set) -> Result<T, Broken> + Send + Sync + 'static,
    ) -> Result<Self, Broken> {
        let content = files.content()?;
        let set = files.understand(&content)?;
        let current = make(&set)?;
        let seen = Seen { mark: Some(content.mark()), broken: false, not_after: set.not_after() };
        Ok(Self { files, make: Box::new(make), current: RwLock::new(current), seen: Mutex::new(seen) })
    }

    /// What is in use.
    #[must_use]
    pub fn current(&self) -> T {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the certificate in use expires, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> Option<i64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).not_after
    }

    /// Whether the files of the last look were of no use.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).broken
    }

    /// Reads the files and takes over what changed. Blocks.
    pub fn look(&self) -> Reloaded {
        // held while reading, so that an older look can not undo a newer one
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let content = self.files.content();
        let mark = content.as_ref().ok().map(crate::files::Content::mark);
        if mark == seen.mark {
            return if seen.broken { Reloaded::StillBroken } else { Reloaded::Unchanged };
        }
        seen.mark = mark;
        let made = content.and_then(|content| self.files.understand(&content)).and_then(|set| {
            let made = (self.make)(&set)?;
            Ok((made, set.not_after()))
        });
        match made {
            Ok((made, not_after)) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = made;
                (seen.broken, seen.not_after) = (false, not_after);
                Reloaded::Changed
            }
            Err(broken) => {
                seen.broken = true;
                Reloaded::Broken(broken)
            }
        }
    }
}

impl<T> std::fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloading").field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issue::{Authority, Profile};

    /// A set on disk and what reads it; the number made counts the sets that were taken over.
    struct Disk {
        _dir: tempfile::TempDir,
        files: Files,
        reloading: Reloading<Option<i64>>,
    }

    impl Disk {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = |name: &str| Some(dir.path().join(name));
            let files = Files { trust_bundle: path("ca"), certificate: path("cert"), key: path("key") };
            write(&files, 1);
            let reloading = Reloading::new(files.clone(), |set| Ok(set.not_after())).unwrap();
            Self { _dir: dir, files, reloading }
        }
    }

    fn write(files: &Files, days: i64) {
        let authority = Authority::new("test").unwrap();
        let issued = authority.issue(&Profile { days, ..Profile::client("x") }).unwrap();
        std::fs::write(files.trust_bundle.as_ref().unwrap(), authority.certificate_pem()).unwrap();
        std::fs::write(files.certificate.as_ref().unwrap(), issued.certificate_pem()).unwrap();
        std::fs::write(files.key.as_ref().unwrap(), issued.key_pem()).unwrap();
    }

    #[test]
    fn files_that_changed_are_taken_over() {
        let disk = Disk::new();
        assert!(matches!(disk.reloading.look(), Reloaded::Unchanged));
        let first = disk.reloading.current().unwrap();
        write(&disk.files, 5);
        assert!(matches!(disk.reloading.look(), Reloaded::Changed));
        assert!(disk.reloading.current().unwrap() > first);
        assert_eq!(disk.reloading.not_after(), disk.reloading.current());
    }

    #[test]
    fn broken_files_leave_what_was_there_and_are_told_once() {
        let disk = Disk::new();
        let first = disk.reloading.current();
        // the key of another certificate, as between two writes of a rotation
        let old = std::fs::read(disk.files.key.as_ref().unwrap()).unwrap();
        write(&disk.files, 5);
        let new = std::fs::read(disk.files.key.as_ref().unwrap()).unwrap();
        std::fs::write(disk.files.key.as_ref().unwrap(), old).unwrap();
        assert!(matches!(disk.reloading.look(), Reloaded::Broken(Broken::Key(_))));
        assert!(matches!(disk.reloading.look(), Reloaded::StillBroken));
        assert!(disk.reloading.is_broken() && disk.reloading.current() == first);
        std::fs::remove_file(disk.files.certificate.as_ref().unwrap()).unwrap();
        assert!(matches!(disk.reloading.look(), Reloaded::Broken(Broken::Unreadable { .. })));
        assert!(matches!(disk.reloading.look(), Reloaded::StillBroken));
        write(&disk.files, 5);
        std::fs::write(disk.files.trust_bundle.as_ref().unwrap(), "nothing").unwrap();
        assert!(matches!(disk.reloading.look(), Reloaded::Broken(Broken::Content { .. })));
        assert_eq!(disk.reloading.current(), first);
        drop(new);
        write(&disk.files, 5);
        assert!(matches!(disk.reloading.look(), Reloaded::Changed));
        assert!(!disk.reloading.is_broken() && disk.reloading.current() > first);
    }
}
