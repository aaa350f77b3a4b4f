//! Values of a configuration that are right by type.

use std::{fmt, net::SocketAddr, num::NonZeroU64, time::Duration};

use serde::Deserialize;

/// An address and port to listen at, such as `127.0.0.1:7401`; port 0 for any free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenAddress(SocketAddr);

/// A length of time in milliseconds, from 1 ms to 366 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "u64")]
pub struct Millis(NonZeroU64);

/// A limit: a whole number from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "u64")]
pub struct Count(usize);

/// An address of a server with its scheme, such as `http://127.0.0.1:7402`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Url(String);

const MILLIS_MAX: u64 = 366 * 86_400 * 1000;

impl ListenAddress {
    /// Any free port of the loopback interface.
    pub const ANY_LOOPBACK: Self =
        Self(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0));

    /// The address.
    #[must_use]
    pub const fn address(self) -> SocketAddr {
        self.0
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|_| format!("{text:?} is not an address and port such as 127.0.0.1:7401"))
    }
}

impl Millis {
    /// For defaults in code; 1 ms where `millis` is 0.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        match NonZeroU64::new(millis) {
            Some(millis) => Self(millis),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// The duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0.get())
    }
}

impl TryFrom<u64> for Millis {
    type Error = String;

    fn try_from(millis: u64) -> Result<Self, String> {
        NonZeroU64::new(millis)
            .filter(|millis| millis.get() <= MILLIS_MAX)
            .map(Self)
            .ok_or_else(|| format!("{millis} ms is not between 1 and {MILLIS_MAX}"))
    }
}

impl Count {
    /// For defaults in code; 1 where `count` is 0.
    #[must_use]
    pub const fn of(count: usize) -> Self {
        Self(if count == 0 { 1 } else { count })
    }

    /// The number, at least 1.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }

    /// The number where 32 bits are asked for; the highest that fits.
    #[must_use]
    pub fn get_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl TryFrom<u64> for Count {
    type Error = String;

    fn try_from(count: u64) -> Result<Self, String> {
        usize::try_from(count)
            .ok()
            .filter(|count| *count > 0)
            .map(Self)
            .ok_or_else(|| format!("{count} is not a whole number from 1 on"))
    }
}

impl Url {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Url {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let whole = text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
        if whole {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is not a URL such as http://127.0.0.1:7402"))
        }
    }
}
