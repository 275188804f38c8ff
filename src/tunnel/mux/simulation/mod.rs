//! Two ends, the link between them, and a model of what must come out: for tests and fuzz targets.

mod pair;
mod step;
mod world;

#[cfg(test)]
pub(super) use pair::Pair;
#[cfg(test)]
pub(super) use step::Operation;
pub(super) use step::Step;
pub(super) use world::World;
