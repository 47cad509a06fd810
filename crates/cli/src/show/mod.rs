//! What people and programs get to see.

pub(crate) mod answer;
pub(crate) mod json;
pub(crate) mod observe;
pub(crate) mod table;
