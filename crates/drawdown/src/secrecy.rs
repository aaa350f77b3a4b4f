//! What a process does about its memory before anything secret is in it: it leaves no core dump.
//!
//! A crash would write keys, peppers and passwords to the disk. So the limit of a core file is 0, for this process and
//! what it starts, and on Linux the process is not dumpable: no handler of cores gets it either, and nobody without
//! rights of root attaches a debugger or reads its memory.

use nix::sys::resource::{Resource, setrlimit};

/// Turns core dumps off, for good.
pub(crate) fn forbid_core_dumps() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_leaves_no_core_dump() {
        forbid_core_dumps().unwrap();
        assert_eq!(nix::sys::resource::getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)));
        #[cfg(target_os = "linux")]
        assert_eq!(nix::sys::prctl::get_dumpable(), Ok(false));
    }
}
