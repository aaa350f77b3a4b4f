//! `drawdown certs`: certificates for one machine, made without any other tool.
//!
//! A set is a folder: `trust-bundle.pem`, `authority.key`, and for each name `NAME.pem` and `NAME.key`. Whoever is to see
//! no key but its own gets a folder of its own (`--place`): its two files and the trust bundle. Keys are for
//! their owner alone (0600). Each file is written beside its place and renamed, so that a service that runs reads the old or
//! the new one, never half; between two renames a certificate does not fit its key, which services sit out.

use std::{
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use drawdown_service::Problem;
use drawdown_tls::{
    Name,
    issue::{Authority, DAYS_DEFAULT, Profile},
};
use zeroize::Zeroizing;

use crate::{failure::BadConfiguration, operator::ClientFiles, output, serve::Service};

const TRUST_BUNDLE: &str = "trust-bundle.pem";
const AUTHORITY_KEY: &str = "authority.key";
const AUTHORITY: &str = "drawdown development authority";
/// The caller that every set has.
const CLIENT: &str = "client";
const DAYS_MAX: i64 = 365;

/// Certificates for TLS between services and callers
#[derive(Args, Debug)]
pub(crate) struct CertsCommand {
    #[command(subcommand)]
    action: CertsAction,
}

#[derive(Subcommand, Debug)]
enum CertsAction {
    /// Makes a set for development: an authority, a certificate for each service and one for a client
    #[command(
        after_help = "Example:\n  drawdown certs dev --out ./certs\n  drawdown certs dev --out ./certs --renew"
    )]
    Dev(DevArguments),
}

#[derive(Args, Debug)]
struct DevArguments {
    /// The folder of the set
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Issues all certificates anew, by the authority that is there; makes it where there is none
    #[arg(long)]
    renew: bool,
    /// Replaces a set that is there, and its authority: what trusted the old one trusts none of the new
    #[arg(long, conflicts_with = "renew")]
    overwrite: bool,
    /// How many days the certificates hold
    #[arg(long, value_name = "DAYS", default_value_t = DAYS_DEFAULT)]
    days: i64,
    /// One more host name that the services are reached by, beside their own names, localhost and the loopback
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// One more caller with a certificate
    #[arg(long, value_name = "NAME")]
    client: Vec<String>,
    /// Puts the certificate and the key of NAME, and the trust bundle, into a folder without any other key as well
    #[arg(long, value_name = "NAME=DIR", value_parser = place)]
    place: Vec<(String, PathBuf)>,
}

fn place(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, dir)) if !name.is_empty() && !dir.is_empty() => Ok((name.to_owned(), dir.into())),
        _ => Err("is not NAME=DIR".to_owned()),
    }
}

/// What is done with a set that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Present {
    Refuse,
    Renew,
    Overwrite,
}

/// Where the files of a set are.
#[derive(Clone, Debug)]
pub(crate) struct SetFiles(PathBuf);

/// Who gets a certificate.
struct Plan {
    profiles: Vec<Profile>,
    /// Folders of single names.
    places: Vec<(String, SetFiles)>,
}

impl CertsCommand {
    pub(crate) fn run(self) -> Result<()> {
        let CertsAction::Dev(arguments) = self.action;
        let present = match (arguments.renew, arguments.overwrite) {
            (true, _) => Present::Renew,
            (_, true) => Present::Overwrite,
            _ => Present::Refuse,
        };
        let plan = Plan::new(&arguments.host, &arguments.client, arguments.days);
        let plan = plan.and_then(|plan| plan.with_places(arguments.place)).map_err(BadConfiguration)?;
        let files = SetFiles(arguments.out);
        plan.write(&files, present)?;
        output::print(&format!("{}: certificates of {} days\n", files.0.display(), arguments.days))
    }
}

// === impl SetFiles ===

impl SetFiles {
    /// The set in this folder, made where there is none and renewed where there is one.
    pub(crate) fn at(dir: &Path) -> Result<Self> {
        let files = Self(std::path::absolute(dir).with_context(|| format!("no folder {}", dir.display()))?);
        Plan::new(&[], &[], DAYS_DEFAULT).map_err(BadConfiguration)?.write(&files, Present::Renew)?;
        Ok(files)
    }

    pub(crate) fn trust_bundle(&self) -> PathBuf {
        self.0.join(TRUST_BUNDLE)
    }

    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.pem"))
    }

    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.key"))
    }

    /// Of the caller that every set has.
    pub(crate) fn client(&self) -> ClientFiles {
        ClientFiles {
            trust_bundle: self.trust_bundle(),
            certificate: self.certificate(CLIENT),
            key: self.key(CLIENT),
        }
    }
}

// === impl Plan ===

impl Plan {
    fn new(hosts: &[String], clients: &[String], days: i64) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        if !(1..=DAYS_MAX).contains(&days) {
            problems.push(Problem::new("--days", format!("{days} is not between 1 and {DAYS_MAX}")));
        }
        for client in clients {
            let taken = Service::ALL.iter().any(|service| service.name() == client);
            if taken || Name::new(client).is_err() {
                let description = format!("{client:?} is no name of a caller: 1 to 63 of a-z, 0-9 and '-'");
                problems.push(Problem::new("--client", description));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let services = Service::ALL.iter().map(|service| {
            let mut profile = Profile::service(service.name());
            profile.hosts.extend(hosts.iter().cloned());
            profile
        });
        let clients = std::iter::once(CLIENT).chain(clients.iter().map(String::as_str)).map(Profile::client);
        let profiles = services.chain(clients).map(|profile| Profile { days, ..profile }).collect();
        Ok(Self { profiles, places: Vec::new() })
    }

    fn with_places(mut self, places: Vec<(String, PathBuf)>) -> Result<Self, Vec<Problem>> {
        let is_known = |name: &str| self.profiles.iter().any(|profile| profile.common_name == name);
        let unknown = places.iter().filter(|(name, _)| !is_known(name));
        let problem = |(name, _): &(String, PathBuf)| {
            Problem::new("--place", format!("{name:?} gets no certificate: a service, client, or a --client"))
        };
        let problems: Vec<_> = unknown.map(problem).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        self.places = places.into_iter().map(|(name, dir)| (name, SetFiles(dir))).collect();
        Ok(self)
    }

    fn write(&self, files: &SetFiles, present: Present) -> Result<()> {
        let dir = &files.0;
        if present == Present::Refuse {
            let names = self.profiles.iter().map(|profile| profile.common_name.as_str());
            let of_names = names.flat_map(|name| [files.certificate(name), files.key(name)]);
            let mut all = of_names.chain([files.trust_bundle(), dir.join(AUTHORITY_KEY)]);
            if let Some(there) = all.find(|path| path.symlink_metadata().is_ok()) {
                anyhow::bail!("{} is there already: --renew or --overwrite", there.display());
            }
        }
        for dir in std::iter::once(dir).chain(self.places.iter().map(|(_, place)| &place.0)) {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .with_context(|| format!("can not make {}", dir.display()))?;
        }
        let authority = authority(&dir.join(AUTHORITY_KEY), present)?;
        for files in std::iter::once(files).chain(self.places.iter().map(|(_, place)| place)) {
            replace(&files.trust_bundle(), authority.certificate_pem(), 0o644)?;
        }
        for profile in &self.profiles {
            let issued = authority
                .issue(profile)
                .with_context(|| format!("no certificate for {}", profile.common_name))?;
            let name = &profile.common_name;
            let places = self.places.iter().filter(|(of, _)| of == name).map(|(_, place)| place);
            for files in std::iter::once(files).chain(places) {
                replace(&files.certificate(name), &issued.certificate_pem(), 0o644)?;
                replace(&files.key(name), issued.key_pem(), 0o600)?;
            }
        }
        Ok(())
    }
}

fn authority(key: &Path, present: Present) -> Result<Authority> {
    if present == Present::Renew {
        match std::fs::read_to_string(key).map(Zeroizing::new) {
            Ok(pem) => {
                return Authority::of_key(AUTHORITY, &pem)
                    .with_context(|| format!("{} is no key of an authority", key.display()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("can not read {}", key.display())),
        }
    }
    let authority = Authority::new(AUTHORITY)?;
    replace(key, &authority.key_pem(), 0o600)?;
    Ok(authority)
}

/// Writes a file as a whole or not at all, with these rights from its first byte on.
fn replace(path: &Path, content: &str, mode: u32) -> Result<()> {
    let half = path.with_extension("partial");
    let written = || -> std::io::Result<()> {
        drop(std::fs::remove_file(&half));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&half)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&half, path)
    };
    written().with_context(|| format!("can not write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use drawdown_tls::{Broken, Clients, Files};

    use super::*;

    fn dev(dir: &Path, present: Present) -> Result<SetFiles> {
        let files = SetFiles(dir.to_owned());
        Plan::new(&["ledger.example".to_owned()], &["gateway".to_owned()], 7)
            .unwrap()
            .write(&files, present)?;
        Ok(files)
    }

    fn files_of(set: &SetFiles, name: &str) -> Files {
        Files {
            trust_bundle: Some(set.trust_bundle()),
            certificate: Some(set.certificate(name)),
            key: Some(set.key(name)),
        }
    }

    #[test]
    fn a_set_has_what_services_and_callers_need_and_keys_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let set = dev(&dir.path().join("certs"), Present::Refuse).unwrap();
        for name in ["metering", "ledger", "entitlement", "client", "gateway"] {
            let read = files_of(&set, name).read().unwrap();
            read.client(&[]).unwrap();
            read.server(Clients::Required, &[]).unwrap();
            let mode = std::fs::metadata(set.key(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let authority = std::fs::metadata(set.0.join(AUTHORITY_KEY)).unwrap().permissions().mode();
        let folder = std::fs::metadata(&set.0).unwrap().permissions().mode();
        assert_eq!((authority & 0o777, folder & 0o777), (0o600, 0o700));
        let left: Vec<_> =
            std::fs::read_dir(&set.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2 + 2 * 5, "{left:?}");
    }

    #[test]
    fn a_place_has_the_key_of_its_name_and_no_other_one() {
        let dir = tempfile::tempdir().unwrap();
        let (set, place) = (SetFiles(dir.path().join("set")), dir.path().join("ledger"));
        let plan = |name: &str| {
            let plan = Plan::new(&[], &[], 7).unwrap();
            plan.with_places(vec![(name.to_owned(), place.clone())])
        };
        plan("ledger").unwrap().write(&set, Present::Refuse).unwrap();
        let files = |dir: &Path| {
            let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(files(&place), ["ledger.key", "ledger.pem", "trust-bundle.pem"]);
        let read = files_of(&SetFiles(place.clone()), "ledger").read().unwrap();
        read.server(Clients::Required, &[]).unwrap();
        let mode = std::fs::metadata(place.join("ledger.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let of = |dir: &Path| std::fs::read_to_string(dir.join("ledger.key")).unwrap();
        let first = of(&place);
        plan("ledger").unwrap().write(&set, Present::Renew).unwrap();
        assert!(of(&place) != first && of(&place) == of(&set.0), "it is renewed as the set is");
        assert!(plan("nobody").is_err());
    }

    #[test]
    fn a_set_that_is_there_stays_unless_told() {
        let dir = tempfile::tempdir().unwrap();
        let read = |set: &SetFiles| {
            let text = |path: PathBuf| std::fs::read_to_string(path).unwrap();
            (text(set.0.join(AUTHORITY_KEY)), text(set.certificate("ledger")), text(set.key("ledger")))
        };
        let set = dev(dir.path(), Present::Refuse).unwrap();
        let first = read(&set);
        let refused = dev(dir.path(), Present::Refuse).unwrap_err();
        assert!(refused.to_string().ends_with("is there already: --renew or --overwrite"), "{refused}");
        assert_eq!(read(&set), first);
        dev(dir.path(), Present::Renew).unwrap();
        let renewed = read(&set);
        assert!(renewed.0 == first.0 && renewed.1 != first.1 && renewed.2 != first.2);
        dev(dir.path(), Present::Overwrite).unwrap();
        assert_ne!(read(&set).0, first.0);
    }

    #[test]
    fn one_file_in_the_way_is_enough_to_refuse() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("client.key"), "precious").unwrap();
        dev(dir.path(), Present::Refuse).unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::write(dir.path().join(AUTHORITY_KEY), "no key").unwrap();
        let broken = dev(dir.path(), Present::Renew).unwrap_err();
        assert!(broken.to_string().ends_with("is no key of an authority"), "{broken}");
        assert!(matches!(
            files_of(&SetFiles(dir.path().to_owned()), "client").read(),
            Err(Broken::Unreadable { .. })
        ));
    }

    #[test]
    fn wrong_arguments_are_all_told() {
        let clients = ["ledger".to_owned(), "A b".to_owned()];
        let problems = Plan::new(&[], &clients, 0).err().unwrap();
        let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["--days", "--client", "--client"]);
    }
}
