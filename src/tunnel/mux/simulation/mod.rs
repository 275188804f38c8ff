//! Two ends, the link between them, and a model of what must come out: for tests and fuzz targets.

mod pair;
mod step;
mod world;

pub(super) use pair::Pair;
pub(super) use step::{Operation, Step};
pub(super) use world::World;
