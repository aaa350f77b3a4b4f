//! Which servers are taken. Checked once, at start, so that a wrong one is refused by name and not found out
//! when data is gone.

use std::collections::HashMap;

use redis::{Cmd, FromRedisValue, RedisError, Value, cmd};

/// The oldest version with functions.
const VERSION_MAJOR_MIN: u32 = 7;
/// The only policy that never drops a live key.
const POLICY: &str = "noeviction";

/// Why a server was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can not be used.
    #[error("the address of redis can not be used")]
    Address(#[source] RedisError),
    /// No answer.
    #[error("redis did not answer {call}")]
    Call {
        /// The command.
        call: &'static str,
        /// Why.
        #[source]
        source: RedisError,
    },
    /// It has no functions.
    #[error("{server} {version} is too old: version {VERSION_MAJOR_MIN} or newer is needed")]
    TooOld {
        /// Which program.
        server: String,
        /// Its version.
        version: String,
    },
    /// A setting under which acknowledged usage could vanish.
    #[error("redis setting {name} is {found:?} and must be {wanted:?}")]
    Unsafe {
        /// The setting.
        name: &'static str,
        /// What it is.
        found: String,
        /// What it has to be.
        wanted: &'static str,
    },
    /// The library was not loaded.
    #[error("the function library could not be loaded")]
    Library(#[source] RedisError),
    /// One of several servers.
    #[error("the master at {node} was not taken")]
    Node {
        /// Its address.
        node: String,
        /// Why.
        #[source]
        source: Box<StartError>,
    },
}

impl StartError {
    /// Whether the same server may be taken later as it is.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Call { source, .. } | Self::Library(source) => {
                source.is_io_error() || source.is_timeout() || source.is_connection_dropped()
            }
            Self::Address(_) | Self::TooOld { .. } | Self::Unsafe { .. } => false,
            Self::Node { source, .. } => source.is_transient(),
        }
    }
}

/// What a server has to be asked, in this order.
pub(super) fn questions() -> [Cmd; 2] {
    let (mut info, mut config) = (cmd("INFO"), cmd("CONFIG"));
    info.arg("server");
    config.arg(&["GET", "maxmemory-policy", "appendonly"]);
    [info, config]
}

/// Judges the answers.
pub(super) fn judge(
    [info, settings]: [Result<Value, RedisError>; 2],
    allow_unsafe: bool,
) -> Result<(), StartError> {
    let info: String = answer("INFO", info)?;
    check_version(&info)?;
    let settings: HashMap<String, String> = answer("CONFIG GET", settings)?;
    match check_settings(&settings) {
        Err(refused) if allow_unsafe => {
            tracing::warn!(refused = %refused, "taking an unsafe redis because redis.allow_unsafe is set");
            Ok(())
        }
        checked => checked,
    }
}

fn answer<T: FromRedisValue>(call: &'static str, value: Result<Value, RedisError>) -> Result<T, StartError> {
    let value = value.and_then(|value| T::from_redis_value(value).map_err(RedisError::from));
    value.map_err(|source| StartError::Call { call, source })
}

fn check_version(info: &str) -> Result<(), StartError> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let version = field("redis_version:").unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major >= VERSION_MAJOR_MIN) {
        return Ok(());
    }
    let server = field("server_name:").unwrap_or("redis").to_owned();
    Err(StartError::TooOld { server, version: version.to_owned() })
}

fn check_settings(settings: &HashMap<String, String>) -> Result<(), StartError> {
    for (name, wanted) in [("maxmemory-policy", POLICY), ("appendonly", "yes")] {
        let found = settings.get(name).map_or("unknown", String::as_str);
        if found != wanted {
            return Err(StartError::Unsafe { name, found: found.to_owned(), wanted });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused_by_name() {
        for (info, verdict) in [
            ("# Server\r\nredis_version:7.0.15\r\n", None),
            ("redis_version:8.2.3\r\n", None),
            ("server_name:valkey\r\nredis_version:7.2.4\r\n", None),
            ("redis_version:6.2.5\r\n", Some("redis 6.2.5 is too old: version 7 or newer is needed")),
            ("", Some("redis unknown is too old: version 7 or newer is needed")),
        ] {
            assert_eq!(check_version(info).err().map(|e| e.to_string()).as_deref(), verdict, "{info}");
        }
    }

    #[test]
    fn unsafe_settings_are_refused_by_name() {
        let settings = |policy: &str, aof: &str| {
            HashMap::from([
                ("maxmemory-policy".to_owned(), policy.to_owned()),
                ("appendonly".to_owned(), aof.to_owned()),
            ])
        };
        assert!(check_settings(&settings("noeviction", "yes")).is_ok());
        for (policy, aof, name) in
            [("allkeys-lru", "yes", "maxmemory-policy"), ("noeviction", "no", "appendonly")]
        {
            let refused = check_settings(&settings(policy, aof));
            assert!(matches!(refused, Err(StartError::Unsafe { name: found, .. }) if found == name));
        }
        assert!(check_settings(&HashMap::new()).is_err());
    }
}
