//! The harness: all services in one process, or as real processes.
