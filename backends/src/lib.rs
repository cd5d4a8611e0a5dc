//! Outboard.
