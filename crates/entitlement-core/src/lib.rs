//! the pure half of entitlement: resolution over history
