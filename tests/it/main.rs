//! One integration binary: everything here runs against real servers and real processes.

mod fixture;
mod main_job;
mod set_up;
