//! what every server does the same way: config, telemetry, layers, health, drain, errors to status
