//! The methods that exist, from the contracts: the only names that become labels of metrics. A path that
//! a caller invents must not make a time series.

use std::collections::HashSet;

use prost::Message;
use prost_types::FileDescriptorSet;

/// The label of every path that is no method.
pub(super) const UNKNOWN: (&str, &str) = ("unknown", "unknown");

/// The descriptors of everything that a server answers for.
pub(crate) const fn descriptor_sets() -> [&'static [u8]; 4] {
    [
        drawdown_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ]
}

/// Paths of all methods, such as `/drawdown.ledger.v1.TokenService/ListLots`.
pub(super) fn known() -> HashSet<String> {
    descriptor_sets()
        .into_iter()
        .filter_map(|bytes| FileDescriptorSet::decode(bytes).ok())
        .flat_map(|set| set.file)
        .flat_map(|file| {
            let package = file.package().to_owned();
            file.service.into_iter().map(move |service| (package.clone(), service))
        })
        .flat_map(|(package, service)| {
            let name = format!("/{package}.{}", service.name());
            service
                .method
                .into_iter()
                .map(move |method| format!("{name}/{}", method.name()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Service and method of a path.
pub(super) fn split<'a>(known: &HashSet<String>, path: &'a str) -> (&'a str, &'a str) {
    if known.contains(path) {
        path.trim_start_matches('/').split_once('/').unwrap_or(UNKNOWN)
    } else {
        UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_come_from_the_contracts() {
        let known = known();
        for (path, expected) in [
            ("/drawdown.ledger.v1.TokenService/ListLots", ("drawdown.ledger.v1.TokenService", "ListLots")),
            ("/grpc.health.v1.Health/Check", ("grpc.health.v1.Health", "Check")),
            ("/drawdown.ledger.v1.TokenService/ListLotz", UNKNOWN),
            ("/", UNKNOWN),
        ] {
            assert_eq!(split(&known, path), expected, "{path}");
        }
    }
}
