//! The whole pure path, from events to a merged batch, against naive references.

#[cfg(test)]
mod aggregate;
#[cfg(test)]
mod cells;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod look;
#[cfg(test)]
mod names;
#[cfg(test)]
mod path;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod retirement;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod setup;
#[cfg(test)]
mod values;
