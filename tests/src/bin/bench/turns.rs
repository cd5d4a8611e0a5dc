//! Cycles that a guest counts, in runs that are made in turn.

use anyhow::{Context, Result};

use crate::{median, median_ratio};

/// The first kind of run is what the others are compared with.
#[derive(Default)]
pub struct Turns(Vec<(&'static str, Vec<f64>)>);

impl Turns {
    pub fn add(&mut self, name: &'static str, cycles: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => all.push(cycles),
            None => self.0.push((name, vec![cycles])),
        }
    }

    pub fn print(&self, what: &str) {
        let (first, ours) = &self.0[0];
        println!(
            "cycles per {what}, {first}: {:.0}",
            median(&mut ours.clone())
        );
        for (name, theirs) in &self.0[1..] {
            let ratio = median_ratio(theirs, ours);
            println!("  {name}: {ratio:.2} times as many");
        }
    }
}

/// The number behind `name` in what a guest has printed.
pub fn number_behind(console: &str, name: &str) -> Result<f64> {
    let (_, after) = console
        .split_once(name)
        .context("the guest printed no result")?;
    let number = after.split_whitespace().next().unwrap_or_default();
    Ok(number.parse()?)
}
