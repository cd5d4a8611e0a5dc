//! What the checks found, for people and for programs.

mod json;
mod junit;
mod pattern;
mod summary;
mod text;

pub use json::json;
pub use junit::junit;
pub use pattern::Pattern;
pub use summary::Summary;
pub use text::{Text, list};
