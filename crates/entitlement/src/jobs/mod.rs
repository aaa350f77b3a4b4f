//! Clock-driven loops. This service has one: everything else is true without a job.

pub(crate) mod clock_check;
