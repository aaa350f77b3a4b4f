//! One integration binary: everything here runs against real servers and real processes.

mod access;
mod bad_input;
mod callers;
mod cells;
mod composed;
mod fixture;
mod levels;
mod main_job;
mod matrix;
mod moved;
mod moving;
mod restored;
mod secured;
mod set_up;
mod telemetry;
mod up;
